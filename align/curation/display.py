"""Examples as tokens, in colour, as a method sees them: in the terminal and as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup
from rich.text import Text

from align.system.files import write_text
from align.system.pages import pages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Example

__all__ = ["LEGEND", "Token", "as_html", "as_text", "legend_html", "row_html", "tokens_of"]

Kind = Literal["prompt", "chosen", "rejected", "end", "pad"]

_STYLES: dict[Kind, str] = {
    "prompt": "dim",
    "chosen": "green",
    "rejected": "red",
    "end": "bold black on yellow",
    "pad": "dim strike",
}
LEGEND: dict[Kind, str] = {
    "prompt": "prompt, not trained on",
    "chosen": "response, trained on",
    "rejected": "other response, trained on",
    "end": "end of turn, trained on",
    "pad": "padding, masked",
}


_ESCAPES = {"\n": "⏎\n", "\u3000": "\u3000", "\u00a0": "\u00a0", "\u200c": "\u200c", "\u200d": "\u200d"}
"""Shown otherwise than by their number: line breaks, blanks, and what joins letters or not."""


_MOST_BYTES = 4
"""Of a character in UTF-8, each of which may be a token."""


@dataclass(frozen=True)
class Token:
    """One token of a row of the model."""

    text: str
    id: int
    kind: Kind


def tokens_of(example: Example, tokenizer: PreTrainedTokenizerBase, end: int) -> list[list[Token]]:
    """Return for each response its row of tokens: prompt, response, end of turn, padding to the longest response.

    Args:
        example: Tokenised; the first response is the chosen one, of a judgement each that is good. Without responses it
            is one row, the prompt.
        tokenizer: Of the model.
        end: Id of the token that ends a turn.
    """
    longest = max(map(len, example.responses), default=0)
    pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0
    rows: list[list[Token]] = []
    for number, ids in enumerate(example.responses or [[]]):
        side: Kind = "chosen" if (example.good[number] if example.good else not number) else "rejected"
        kinds: list[Kind] = ["prompt"] * len(example.prompt_ids)
        kinds.extend("end" if place == len(ids) - 1 and token == end else side for place, token in enumerate(ids))
        kinds.extend("pad" for _ in range(longest - len(ids)))
        every = [*example.prompt_ids, *ids, *[pad] * (longest - len(ids))]
        texts = _texts(every, kinds, tokenizer)
        rows.append([Token(text, token, kind) for text, token, kind in zip(texts, every, kinds, strict=True)])
    return rows


def _texts(ids: Sequence[int], kinds: Sequence[Kind], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of each token; a character of several tokens stands at its last one, "·" at the others."""
    texts: list[str] = []
    begun: list[int] = []
    for place, token in enumerate(ids):
        begun.append(token)
        text = str(tokenizer.decode(begun))
        goes_on = place + 1 < len(ids) and kinds[place + 1] == kinds[place] and len(begun) < _MOST_BYTES
        if text.endswith("\ufffd") and goes_on:
            texts.append("·")
            continue
        texts.append(text)
        begun = []
    return texts


def as_text(tokens: Sequence[Token]) -> Text:
    """Return a row for the terminal; line breaks are shown as ⏎ and broken, other control characters as escapes."""
    text = Text()
    for token in tokens:
        text.append(_visible(token.text), style=_STYLES[token.kind])
    return text


def _visible(text: str) -> str:
    """Return text whose control characters cannot act on a terminal, nor turn the direction of what follows."""
    shown = (
        character if character.isprintable() else _ESCAPES.get(character, ascii(character)[1:-1]) for character in text
    )
    return "".join(shown)


def as_html(rows: Sequence[Sequence[Token]], page: Path, *, title: str) -> None:
    """Write rows as a page that needs nothing else; the id of a token shows under the pointer."""
    template = pages(Path(__file__).parent).from_string(
        '{% extends "frame.html.jinja" %}{% block content %}<p>{{ legend }}</p>'
        '{% for row in rows %}<p class="tokens">{{ row }}</p>{% endfor %}{% endblock %}'
    )
    write_text(page, template.render(title=title, legend=legend_html(), rows=[row_html(row) for row in rows]))


def legend_html() -> Markup:
    """Return the kinds of tokens, each in its style (``frame.html.jinja``)."""
    return Markup(" ").join(Markup('<span class="t-{}">{}</span>').format(kind, text) for kind, text in LEGEND.items())


def row_html(row: Sequence[Token]) -> Markup:
    """Return a row, each token in the style of its kind, with its id under the pointer."""
    span = Markup('<span class="t-{}" title="{}">{}</span>')
    return Markup().join(span.format(token.kind, token.id, _visible(token.text)) for token in row)
