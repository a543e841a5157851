"""Texts that do harm where a page or a terminal takes them for more than text; each script would set ``hacked``."""

from __future__ import annotations

__all__ = ["HOSTILE"]

HOSTILE = [
    # Scripts
    "<script>hacked=1</script>",
    "<ScRiPt>hacked=1</sCrIpT>",
    "<script src=http://localhost:9/x.js></script>",
    '<script type="module">hacked=1</script>',
    "</script><script>hacked=1</script>",
    "</style><script>hacked=1</script>",
    "</title><script>hacked=1</script>",
    "</textarea><script>hacked=1</script>",
    "--><script>hacked=1</script>",
    "]]><script>hacked=1</script>",
    "<noscript><p title='</noscript><script>hacked=1</script>'>",
    # Handlers
    '"><img src=x onerror=hacked=1>',
    "'><img src=x onerror=hacked=1>",
    "<img src=http://localhost:9/x.png>",
    "<svg onload=hacked=1>",
    "<svg><script>hacked=1</script></svg>",
    "<body onload=hacked=1>",
    "<details open ontoggle=hacked=1>",
    "<input autofocus onfocus=hacked=1>",
    '" onmouseover="hacked=1" x="',
    "' autofocus onfocus='hacked=1",
    "<math><mtext><style><img src=x onerror=hacked=1></style></mtext></math>",
    # Addresses and forms
    '<a href="javascript:hacked=1">x</a>',
    "<iframe src=javascript:hacked=1></iframe>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<object data=http://localhost:9/x></object>",
    "<link rel=stylesheet href=http://localhost:9/x.css>",
    "<meta http-equiv=refresh content='0;url=http://localhost:9/'>",
    "<base href=http://localhost:9/>",
    "<style>@import 'http://localhost:9/x.css'; * { display: none }</style>",
    '";background:url(http://localhost:9/x)"',
    "<form action=http://localhost:9/><button autofocus>",
    # Entities, comments, templates, mark-up of other kinds
    "&lt;script&gt;hacked=1&lt;/script&gt;",
    "&#60;script>hacked=1&#60;/script>",
    "<!-- --><plaintext>",
    "<![CDATA[<script>hacked=1</script>]]>",
    "{{ 7 * 7 }} {% raw %}",
    "{{ ''.__class__.__mro__ }}",
    "$\\frac{1}{0}$ $x_",
    "**bold** [x](javascript:hacked=1) `code` | cell |",
    "[bold red]rich[/bold red] [link=http://localhost:9]x[/link]",
    # Characters that act
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J",
    "a\x00b\x08\x7f\x9b31m",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "\u200b\u200e\ufeffinvisible",
    "lone \ud800 surrogate",
    "line\u2028separator\u2029\x85\x0c\x0b",
    "z\u0351\u0361\u0489" * 40,
]
