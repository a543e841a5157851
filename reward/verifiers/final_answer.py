r"""Where the final answer of a text stands.

It stands in the last mark: ``\boxed{…}`` (several of them joined by commas, "and" or "or" are one answer),
``<answer>…</answer>``, ``#### …``, or prose such as "The answer is …", "Final answer: …" and
"A: …". Prose that holds no mathematics ("I hope the answer is correct") does not replace an earlier mark. A box or tag
that is not closed was cut off: there is no answer. Everything here takes linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from reward.verifiers.wording import in_ascii_digits, in_symbols, is_part

LONGEST_ANSWER = 1_000  # characters
_TAIL = 10_000  # characters read of a text without a mark
_MOST_BOXES = 50  # joined

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<brace>\{)?")
_TAG = re.compile(r"<(?P<closes>/?)answer>", re.IGNORECASE)
_HASHES = re.compile(  # not a heading of Markdown
    r"(?<!#)####(?!#)(?!\W{0,9}(?:step|part|case|solution|explanation|conclusion|problem|question)\b)", re.IGNORECASE
)
_PROSE = re.compile(
    r"\banswer\b[^\n.:=?!]{0,60}?(?:\b(?:is|be|equals|was)\b:?|[:=])|\banswers\b[^\n.:=?!]{0,60}?\bare\b:?"
    r"|^[ \t*]*a:|^[^\w\n]*(?:final |correct )?answer[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(r"</?answer>|<\|", re.IGNORECASE)
_SPACE = r"(?:[\s$]|\\[()\[\],;! ]|\\q?quad)*"
_JOINT = re.compile(rf"{_SPACE}(?:[,;&]|and\b|or\b|,\s*(?:and|or)\b){_SPACE}")
_ASIDE = re.compile(r"\\text\{[^{}.]{0,40}\b(?:and|or)\s*\}")
_FORMULA = re.compile(  # a dollar sign before a digit opens, and does not close, as in "$5 or $6"
    r"(?<!\\)\$\$(?P<dollars>[^$]{1,1000})\$\$|\\\[(?P<square>(?:[^\\]|\\(?!\])){1,1000})\\\]"
    r"|(?<![\\\d])\$(?P<dollar>(?:[^$\\\n]|\\.){1,1000})\$(?!\d)|\\\((?P<round>(?:[^\\\n]|\\(?!\))){1,1000})\\\)"
)
_BETWEEN = re.compile(r"\s*(?:,\s*and\b|,\s*or\b|and\b|or\b|[,;&])\s*")
_PERCENT = re.compile(r"[\s$]*(?:\\?%|percent\b)", re.IGNORECASE)
_ARGUMENT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_FUNCTIONS = "pi|sqrt|frac|sin|cos|tan|log|ln|exp"
_SCALES = "hundred|thousand|million|billion|trillion|dozen|percent"
_CJK = (  # written without blanks; Thai, Lao, Burmese and Khmer too
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u103f\u1780-\u17d3"
)
_STOPS = "\u3002\uff01\uff1f\u0964\u06d4\u061f"  # full stop, exclamation and question mark of such prose
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_GREEK = "\u0370-\u03bf\u03c1-\u03ff\u1f00-\u1fff"  # without π; two such letters may be a product
_SIGNS = "\u00aa-\u00ba\u00bc-\u00be\u03c0\u2070-\u24ff\U0001d400-\U0001d7ff"  # letters of mathematics, ² and ½
_WORD = re.compile(
    rf"(?<![{_LATIN}\\])(?!(?:{_FUNCTIONS}|{_SCALES}|and|or)\b)[{_LATIN}]{{2,}}(?!\()|(?<=\s)[aAI](?=\s[A-Za-z]{{2}})"
    rf"|[{_GREEK}]{{3,}}|[^\W\d_{_LATIN}{_GREEK}{_SIGNS}]"
)
_VERB = re.compile(r"(?:\b(?:is|are|be|equals?|gets?|gives?)\b|[=:])\s*")
_LETTER = rf"[^\W\d{_CJK}]"
_BLANKS = r"[ \u00a0\u2009\u202f]"
_NUMBER = (
    r"[$€£¥₹]?(?:\d{1,3}(?:\.\d{3}){1,30},\d{1,2}(?!\d)|\d{1,3}(?:,\d{3}){1,30}(?!\d)(?:\.\d{1,100})?"
    rf"|\d{{1,3}}(?:{_BLANKS}\d{{3}}){{1,30}}(?!\d)(?:\.\d{{1,100}}|,\d{{1,2}}(?!\d))?"
    r"|\d{1,3} \d{1,2} ?/ ?\d{1,3}(?![\d/])|\d+(?:[.,]\d+)?"
    rf"|(?<![^\W{_CJK}])\.\d+)"
    rf"(?:[eE][-+]?\d{{1,3}}(?![^\W{_CJK}]))?"
)
_VULGAR = "[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"
_TOKEN = re.compile(  # of arithmetic; dates, versions, times and ratios are one token, as is a word
    r"(?P<number>(?<![.\\\d])(?:0x[\da-fA-F]+|\d+(?:\.\d+){2,}|\d+(?:(?:[:∶]| : )\d+)+|\d{1,3}(?:['’]\d{3})+"
    r"|\d+[年년] ?\d+[月월](?: ?\d+[日일])?|\d+[月월] ?\d+[日일]|\d{4}-\d\d-\d\d(?!\d)|\d\d?/\d\d?/\d{4}(?!\d)"
    rf"|{_NUMBER}{_VULGAR}?(?:⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,9}}|\s?\\?%|\sdozen\b)?|{_VULGAR}))"
    r"|(?P<operator>\*\*|[-−–+±*/^×·⋅÷]|(?<=\w)_(?=[\d{])|\\(?:cdot|times|div|pm)(?![A-Za-z])|!(?= ?[-+*/^×·)]))"
    rf"|(?P<symbol>√|\\[A-Za-z]+|(?:{_FUNCTIONS}|[a-zπ])(?![^\W_{_CJK}]))|(?P<word>{_LETTER}\w*?(?=[\W{_CJK}]|$))"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)|(?P<other>\S)"
)
_FACTORS = re.compile(rf"[ixyznπ√\\]|{_FUNCTIONS}")  # right after a number; other letters are units
_CLAUSE = re.compile(rf"[,;:(]\s|[.!?](?:\s|$)|[{_STOPS}，；]|\s(?:because|since|as|which|who|that)\b")


def marked_answer(text: str) -> str:
    """Return the marked final answer of a solution, or an empty string."""
    return (marked_readings(text) or ("",))[-1]


def marked_readings(text: str) -> tuple[str, ...] | None:
    """Return the readings of the marked final answer, from its whole line to the mathematics in it.

    None: there is no mark; empty: the answer was cut off.
    """
    text = in_ascii_digits(text)
    marks = ((_BOX, _boxes), (_TAG, _in_tags), (_HASHES, _after_hashes))
    at, read = max(((_last_start(pattern, text), read) for pattern, read in marks), key=lambda mark: mark[0])
    prose = _last_prose(text)
    if prose > at:
        readings = _stated(text[prose : prose + LONGEST_ANSWER + 1])
        if at < 0 or is_mathematical(readings[-1]):
            return readings
    return read(text, at) if at >= 0 else None


def unmarked_readings(text: str) -> tuple[str, ...]:
    """Return the readings of an answer without a mark: one line without words, else the last mathematics.

    A number is read with the whole of the arithmetic that it is part of.
    """
    text = in_ascii_digits(text.strip())
    if not text:
        return ()
    if len(text) <= LONGEST_ANSWER and "\n" not in text and not holds_words(text):
        return (text,)
    whole = (text,) if len(text) <= LONGEST_ANSWER else ()
    tail = in_symbols(text[-_TAIL:])
    formulas = [found for found in _formulas(tail) if re.search(r"\d|\\[A-Za-z]|=", found[2])]
    last = deque(_expressions(tail), maxlen=1)
    if last and (not formulas or last[0][0] >= formulas[-1][1]):
        begin, answer = last[0]
        end = begin + len(answer)
    elif formulas:
        begin, end, answer = formulas[-1]
    else:
        return whole
    return whole if is_part(tail, begin, end) else (*whole, answer)


def is_mathematical(text: str) -> bool:
    """Return True if there is something to calculate: a digit, a command, a letter, or an operator and no word."""
    return bool(
        re.search(r"\d|\\[a-zA-Z]|^[A-Za-z]$|[π∞∅√⁰¹²³⁴⁵⁶⁷⁸⁹]", text)
        or re.fullmatch(r"(?!.*[A-Za-z]{3}).*[-+*/^=<>].*", text)
    )


def holds_words(text: str) -> bool:
    """Return True if there is prose in the text."""
    return _WORD.search(_masked(text)) is not None


# Marks


def _last_prose(text: str) -> int:
    """Return where the last answer in prose begins, the last mathematical one if there is one; -1 without any."""
    last = mathematical = -1
    for mark in deque(_PROSE.finditer(text), maxlen=20):
        last = mark.end()
        if is_mathematical(_stated(text[last : last + LONGEST_ANSWER + 1])[-1]):
            mathematical = last
    return mathematical if mathematical >= 0 else last


def _boxes(text: str, at: int) -> tuple[str, ...]:
    """Return the content of the box that begins there, joined with those before it that belong to the same answer."""
    content, end = _boxed(text, at)
    if not content:
        return ()
    if _PERCENT.match(text, end):
        content += "%"
    contents = [content]
    for _ in range(_MOST_BOXES):
        before = max(text.rfind("\\boxed", max(0, at - LONGEST_ANSWER), at), 0)
        content, end = _boxed(text, before)
        if not content or end > at or not _JOINT.fullmatch(_ASIDE.sub(" and ", text[end:at])):
            break
        contents.insert(0, content)
        at = before
    return (", ".join(contents),)


def _boxed(text: str, at: int) -> tuple[str, int]:
    r"""Return the content of the ``\boxed`` that begins at a place, and its end; empty if it is not closed or none."""
    box = _BOX.match(text, at)
    if box is None:
        return "", at
    begin = box.end()
    if box["brace"] is None:  # \boxed 5
        bare = re.compile(r"[^\s$\\{}]+").match(text, begin)
        return (bare.group(), bare.end()) if bare else ("", begin)
    depth = 0
    for piece in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, begin, begin + LONGEST_ANSWER + 1):
        if piece.group() == "}" and depth == 0:
            return text[begin : piece.start()].strip(), piece.end()
        depth += (piece.group() == "{") - (piece.group() == "}")
    return "", begin


def _in_tags(text: str, _at: int) -> tuple[str, ...]:
    content = _between_tags(text)
    if content is None or len(content) > LONGEST_ANSWER:
        return ()
    return marked_readings(content) or (content, *_stated(content))


def _between_tags(text: str) -> str | None:
    """Return the content of the last pair of tags; None where the last tag opens, or closes nothing."""
    tags = list(deque(_TAG.finditer(text), maxlen=2))
    if len(tags) < 2 or tags[0]["closes"] or not tags[1]["closes"]:
        return None
    return text[tags[0].end() : tags[1].start()].strip()


def _after_hashes(text: str, at: int) -> tuple[str, ...]:
    return _stated(text[at + len("####") :][: LONGEST_ANSWER + 1])


# What a mark says


def _stated(text: str) -> tuple[str, ...]:
    """Return the readings of an answer that the text begins with: its line, its first clause, the mathematics in it."""
    text = _END.split(text, maxsplit=1)[0].lstrip(' \t\n*_:"“')
    leading = next(_formulas(text), None)
    if leading is not None and leading[0] == 0 and not is_part(text, 0, leading[1]):
        return (leading[2],)
    line = in_symbols(text.partition("\n")[0].strip().strip("*_ "))
    begin, end, answer = _mathematics(line)
    if answer and is_part(line, begin, end):
        return (line,)
    clause = _CLAUSE.split(line, maxsplit=1)[0]
    if re.match(r"[,;]\s+[-−$\\(]?\d", line[len(clause) :]):  # of "3, 4" it is a part
        clause = line
    return tuple(dict.fromkeys((line, clause, answer or clause)))


def _mathematics(line: str) -> tuple[int, int, str]:
    """Return begin, end and text of the mathematics that a line begins with, or that follows its "is", or the first."""
    if chunk := _chunk(line):
        return *_place(line, chunk, 0), chunk
    formulas = {begin: (begin, end, answer) for begin, end, answer in _formulas(line)}
    for verb in _VERB.finditer(line):
        if verb.end() in formulas:
            return formulas[verb.end()]
        if chunk := _chunk(line[verb.end() :]):
            return *_place(line, chunk, verb.end()), chunk
    first = min(formulas, default=len(line))
    begin, expression = next(_expressions(line), (first, ""))
    if begin < first:
        return begin, begin + len(expression), expression
    return formulas.get(first, (first, first, ""))


def _place(line: str, chunk: str, at: int) -> tuple[int, int]:
    begin = line.index(chunk, at)
    return begin, begin + len(chunk)


def _chunk(text: str) -> str:
    """Return what a text has before its first word or the end of its sentence, if that is mathematics."""
    word = _WORD.search(_masked(text))
    chunk = text[: word.start()] if word else text
    sentence = re.search(rf"[.!?](?=\s|$)|[{_STOPS}]", chunk)
    if sentence:
        chunk = chunk[: sentence.start()]
    elif word and "(" not in chunk.rstrip(" ("):  # "5 and 3 remain"
        chunk = re.split(r"[,;:]\s|[，；、]|\s(?:and|or)\b", chunk, maxsplit=1)[0]
    chunk = re.sub(r"(?:[\s,;:({=+*/*_-]|\b(?:and|or))+$", "", chunk.strip())
    return chunk if re.search(r"\d|\\[A-Za-z]", chunk) or (chunk == text.strip(" .") and is_mathematical(chunk)) else ""


def _expressions(text: str) -> Iterator[tuple[int, str]]:
    """Yield begin and text of the arithmetic in prose: numbers with all that operators and brackets join to them."""
    run: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        if run and not _joined(run, token):
            yield from _arithmetic(run)
            run = []
        if run or token.lastgroup not in ("word", "comma", "other"):
            run.append(token)
    yield from _arithmetic(run)


def _joined(run: list[re.Match[str]], token: re.Match[str]) -> bool:
    """Return True if a token continues the arithmetic before it."""
    before, kind = run[-1], token.lastgroup
    gap = token.string[before.end() : token.start()]
    if kind in ("word", "other") or len(gap) > 2 or "\n" in gap:
        return False
    if kind == "close":
        return True
    if before.lastgroup in ("operator", "open", "comma"):
        if kind == "operator":
            return before.group() not in "+-−–" and token.group() in "+-−"
        blank_before = len(run) > 1 and run[-2].end() < before.start()
        if len(run) > 1 and before.group() in ("*", "**"):  # else it is emphasis
            return kind != "comma" and blank_before == bool(gap)
        sign = before.group() in "+-−" and blank_before and not gap  # "5 -3" are two numbers
        dash = before.group() == "–" and (blank_before or gap)
        return kind != "comma" and not dash and not (sign and run[-2].lastgroup in ("number", "symbol", "close"))
    if kind in ("operator", "comma"):
        return True
    if before.lastgroup == "number" and kind == "symbol":
        return not gap and _FACTORS.match(token.group()) is not None
    return not gap


def _arithmetic(run: list[re.Match[str]]) -> Iterator[tuple[int, str]]:
    """Yield the parts of a run of tokens, which end at brackets without a partner and at commas outside brackets."""
    opened: list[int] = []
    commas: list[tuple[int, int]] = []  # with the bracket they are in
    cuts: set[int] = set()
    partner: dict[int, int] = {}
    for at, token in enumerate(run):
        if token.lastgroup == "open":
            opened.append(at)
        elif token.lastgroup == "close" and opened:
            partner[opened.pop()] = at
        elif token.lastgroup == "close":
            cuts.add(at)
        elif token.lastgroup == "comma":
            commas.append((at, opened[-1] if opened else -1))
    cuts.update(opened, (at for at, bracket in commas if bracket not in partner), (len(run),))
    tuples = {bracket for _, bracket in commas}
    begin = 0
    for cut in sorted(cuts):
        first, last = begin, cut - 1
        begin = cut + 1
        while last >= first and run[last].lastgroup == "operator" and run[last].group() != "!":
            last -= 1
        while first < last and run[first].lastgroup == "operator" and not _is_sign(run[first], run[first + 1]):
            first += 1
        while partner.get(first) == last and first not in tuples:
            first, last = first + 1, last - 1
        if any(token.lastgroup == "number" for token in run[first : last + 1]):
            yield run[first].start(), run[first].string[run[first].start() : run[last].end()]


def _is_sign(token: re.Match[str], after: re.Match[str]) -> bool:
    before = token.string[max(token.start() - 1, 0) : token.start()]
    return token.group() in "+-−" and token.end() == after.start() and not re.match(rf"[^\W{_CJK}]", before)


def _formulas(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield begin, end and content of formulas between dollar signs or brackets, those in a list as one."""
    at = 0
    while match := _FORMULA.search(text, at):
        parts, at = [_content(match)], match.end()
        if holds_words(parts[0]):  # a price, as in "$5 of the $20 are left"
            at = match.start() + 1
            continue
        if percent := _PERCENT.match(text, at):
            parts[0], at = parts[0] + "%", percent.end()
        begin = match.start()
        while (joint := _BETWEEN.match(text, at)) and (match := _FORMULA.match(text, joint.end())):
            parts.append(_content(match))
            at = match.end()
        yield begin, at, ", ".join(parts)


def _content(match: re.Match[str]) -> str:
    return next(text for text in match.groups() if text is not None).strip()


def _masked(text: str) -> str:
    """Return the text with the arguments of text commands, whose letters are no prose, blotted out."""
    return _ARGUMENT.sub(lambda match: "\\" + "0" * (len(match.group()) - 1), text)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _last_start(pattern: re.Pattern[str], text: str) -> int:
    match = _last(pattern, text)
    return match.start() if match else -1
