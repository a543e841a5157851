"""Numbers in words: what they say in symbols, and where a number is only a part of what is said.

A table, not a grammar: English words for signs, operations, fractions and powers of ten beside a number, and numbers up
to ninety-nine that are the whole answer. What the table does not hold is left as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SPELLED = {"a": 1, **{word: value for value, word in enumerate(_UNITS)}, **_TENS}
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "crore": 10**7,
}
_PARTS = {
    **{"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8},
    **{"ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000},
}
_SCALE = rf"(?:{'|'.join(_SCALES)})"
_PART = rf"(?:{'|'.join(_PARTS)}|halve)"
_NUMBER = r"\d{1,30}(?:,\d{3}){0,10}(?:\.\d{1,30})?"
_WORD = r"[^\W\d_]+"
_COUNT = rf"[-−$€£¥₹*(\\]{{0,3}}(?:\d|(?:{'|'.join(_UNITS[1:])}|{'|'.join(_TENS)})\b)"  # a number begins
_MIXED = (  # quantities in two units are one
    r"(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|yards?|miles?"
    r"|pounds?|lbs?|ounces?|oz|dollars?|cents?|euros?|kg|g|km|met(?:er|re)s?|cm|degrees?)"
)
_OPERAND = r"(?=[-−$\d(\\]|(?:negative|minus)\s|[a-z]\b(?!\s+[a-z]))"
_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "multiplied": "*", "divided": "/"}
_BETWEEN_TWO = r"plus|minus|times|multiplied\s+by|divided\s+by"
_UNREAD = r"factorial|choose|mod|modulo|rem|remainder"
NO_UNIT = rf"(?:and|or|to|but|not|plus|minus|{_UNREAD}|{_SCALE}|{_PART}s|{'|'.join(_UNITS)})"
"""Words after a number with which it is more, or less, than a number with its unit."""


def _times(match: re.Match[str]) -> str:
    value = Fraction(match["number"].replace(",", ""))
    for scale in match["scales"].lower().split():
        value *= _SCALES[scale]
    return str(value) if value.denominator == 1 else match.group()


def _divided(match: re.Match[str]) -> str:
    part = match["part"].lower().removesuffix("s").replace("halve", "half")
    whole = match.groupdict().get("whole")
    top = match["top"] if match["top"].isdigit() else "1"
    return f"{whole} {top}/{_PARTS[part]}" if whole else f"{top}/{_PARTS[part]}"


_READINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (rf"\bnot\s+[^\s,.;]+(?:\s+{_WORD})?,?\s+but\s+(?:rather\s+)?(?={_COUNT})", ""),
    (r"(?<=\d)\s*per\s?cents?\b", "%"),
    (r"(?<=\d)\s+point\s+(?=\d)", "."),
    (rf"(?<![\d.,/^_])(?P<number>{_NUMBER})\s+(?P<scales>{_SCALE}(?:\s+{_SCALE}){{0,2}})\b", _times),
    (rf"\b(?P<whole>\d+)\s+and\s+(?P<top>an?|1)\s+(?P<part>{_PART})\b", _divided),
    (rf"\b(?:(?P<whole>\d+)\s+and\s+)?(?P<top>\d+)\s+(?P<part>{_PART}s)\b", _divided),
    (rf"(?<![\d.,/])(?P<top>1)\s+(?P<part>{_PART})\b(?!\s+(?!of\b){_WORD})", _divided),
    (
        r"(?<=[\d)])\s+(?P<power>squared|cubed)\b(?!\s+(?:\w*met|feet|foot|inch|yard|mile|unit|[kcm]?m\b))",
        lambda match: "^2" if match["power"].lower() == "squared" else "^3",
    ),
    (r"(?<=[\d)])\s+(?:raised\s+)?to\s+the\s+power\s+(?:of\s+)?(?=\d)", "^"),
    (
        rf"(?<=[\d)}}%])\s+(?P<word>{_BETWEEN_TWO})\s+{_OPERAND}",
        lambda match: f" {_OPERATORS[match['word'].lower().split()[0]]} ",
    ),
    (r"(?<=\d) x (?=\d)", " * "),
    (  # not "10 apples minus 3"
        rf"(?P<kept>\d\S{{0,9}}(?:\s+(?!is\b|are\b|equals?\b){_WORD}){{1,2}}\s+minus\s)"
        r"|(?<![-\w])(?:negative|minus)\s+(?=[$\d.(\\])",
        lambda match: match["kept"] or "-",
    ),
)
_RULES = tuple((re.compile(pattern, re.IGNORECASE), reading) for pattern, reading in _READINGS)
_WHOLE = re.compile(
    rf"(?P<sign>(?:negative|minus)\s+)?(?:(?P<half>(?:an?\s+)?half)|(?P<infinity>infinity)|(?P<tens>{'|'.join(_TENS)})"
    rf"(?:[\s-](?P<unit>{'|'.join(_UNITS[1:10])}))?|(?P<small>{'|'.join(_UNITS)}|a(?=\s)))"
    rf"(?P<rest>\s+(?:{_SCALE}|dozen|{_PART}s?))?",
    re.IGNORECASE,
)
_VALUE = rf"{_NUMBER}(?: ?/ ?\d{{1,30}}|%)?"
_ASIDE = re.compile(rf"(?<![\d.,/])(?P<first>{_VALUE})\s+\((?:≈|=|about |approximately )?\s*(?P<other>{_VALUE})\)")
_NOT_ALL = re.compile(  # before a number
    rf"(?:(?:\b(?:not|never)|n['’]t)(?:\s+(?:equal\s+to|exactly|be))?|\b(?:either|neither|between|than)"
    rf"|\bbetween\s.{{1,30}}\band|\d\S{{0,9}}(?:\s+{_WORD}){{0,2}}(?:,?\s+or(?:\s+{_WORD})?|\s+to)"
    rf"|\d\S{{0,9}}(?:\s+{_WORD}){{0,2}}\s+(?:{_BETWEEN_TWO}|{_UNREAD}))\s+(?:[a-z]\s*=\s*)?[$*(\\]{{0,3}}$",
    re.IGNORECASE,
)
_MORE = re.compile(  # after one
    rf"[$*)]{{0,3}}(?:(?:\s+{_WORD}){{0,2}}(?:,?\s+(?:or|but)\s+(?!about|approx|roughly|equivalently)(?:{_WORD}\s+){{0,2}}"
    rf"(?=(?P<other>{_VALUE})|{_COUNT})|\s+(?:to|and|{_BETWEEN_TWO})\s+{_COUNT})"
    rf"|(?:\s+{_WORD}){{1,2}},\s+(?:and\s+)?{_NUMBER}(?:\s+{_WORD}){{0,2}}\s*\.?$"
    rf"|\s+(?:(?:{_UNREAD}|half|{_SCALE}|{_PART}s)\b|to\s+the\s+\S+\s+power))",
    re.IGNORECASE,
)
_FIRST_OF_TWO = re.compile(rf"\s*{_MIXED}\.?,?(?:\s+and)?\s+{_NUMBER}\s*{_MIXED}\b", re.IGNORECASE)
_SECOND_OF_TWO = re.compile(rf"\d\s*{_MIXED}\.?,?(?:\s+and)?\s+$", re.IGNORECASE)
_UNIT_OF_TWO = re.compile(rf"\s*{_MIXED}\b", re.IGNORECASE)
_OTHER_DIGITS = re.compile(r"[^\D0-9]")


def in_ascii_digits(text: str) -> str:
    """Return the text with the digits and separators of other scripts as those of ASCII."""
    text = _OTHER_DIGITS.sub(lambda match: str(unicodedata.decimal(match.group())), text)
    return text.replace("\u066b", ".").replace("\u066c", ",")


def in_symbols(text: str) -> str:
    """Return the text with what the table reads in symbols: "minus 5" as -5, "2 times 3" as 2 * 3, "seven" as 7."""
    whole = _WHOLE.fullmatch(text.strip(" ."))
    if whole:
        text = f"{whole['sign'] or ''}{_spelled(whole)}{whole['rest'] or ''}"
    text = _ASIDE.sub(lambda match: match["first"] if _same(match["first"], match["other"]) else match.group(), text)
    for pattern, reading in _RULES:
        text = pattern.sub(reading, text)
    return text


def is_part(text: str, begin: int, end: int) -> bool:
    """Return True if mathematics in a text is one of several alternatives, a bound, denied, or a part of a quantity."""
    before = max(0, begin - 60)
    if _NOT_ALL.search(text, before, begin) or _FIRST_OF_TWO.match(text, end):
        return True
    if _SECOND_OF_TWO.search(text, before, begin) and _UNIT_OF_TWO.match(text, end):
        return True
    more = _MORE.match(text, end, end + 120)
    return more is not None and not (more["other"] and _same(text[begin:end], more["other"]))


def holds_parts(text: str) -> bool:
    """Return True if a number in the text is only a part of what the text says."""
    return any(is_part(text, *number.span()) for number in re.finditer(_VALUE, text))


def _spelled(match: re.Match[str]) -> str:
    if match["half"]:
        return "1/2"
    if match["infinity"]:
        return "\\infty"
    if match["small"]:
        return str(_SPELLED[match["small"].lower()])
    return str(_SPELLED[match["tens"].lower()] + _SPELLED.get((match["unit"] or "zero").lower(), 0))


def _same(first: str, other: str) -> bool:
    """Return True if two plain numbers differ by no more than one in the last decimal of the second one."""
    if not re.fullmatch(_VALUE, first) or not re.fullmatch(_VALUE, other):
        return False
    decimals = len(other.partition(".")[2].rstrip("%")) + 2 * other.endswith("%")
    error = Fraction(1, 10**decimals) if "." in other else Fraction(0)
    a, b = _value(first), _value(other)
    return a is not None and b is not None and abs(a - b) <= error


def _value(text: str) -> Fraction | None:
    top, _, bottom = text.replace(",", "").replace(" ", "").removesuffix("%").partition("/")
    divisor = int(bottom or 1) * (100 if text.endswith("%") else 1)
    return Fraction(top) / divisor if divisor else None
