r"""Verifier of mathematics: numbers, fractions, percentages, and symbolic equality of LaTeX.

The final answer is, in this order, the content of the last ``\boxed{}``, the text after the last ``####``, or the text
after the last "answer is", "Answer:" or "A:" in its line. Without such a mark it is the whole text in the ``answer``
column (which may hold whole solutions, as in GSM8K); in a response it is the whole text if that is one line without
words, else the last number.

Plain numbers are read here, exactly, and decide at once; equal texts are equal. Only the rest goes to math-verify, in
the killable process of ``bounded.py``, and only within the limits below. Nothing is ever evaluated as code
(CVE-2026-6878).

Two numbers are equal if they differ by at most 10⁻⁶, relative below 1 and absolute above, so that .333333 is ⅓. A
percentage is equal to its number and to its hundredth (12 % is 12 and .12), as in math-verify. Units ("18 dollars",
"$18") do not matter.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from reward.verdict import Verdict, Verifier
from reward.verifiers import bounded

LONGEST_RESPONSE = 1_000_000  # characters; more is no answer
LONGEST_ANSWER = 1_000
DEEPEST = 20  # nested brackets
_TOWER = 2  # powers of powers
_DIGITS = 40  # of a number that goes to symbolic comparison
_LARGEST_EXPONENT = 10_000  # also of the upper bound of a sum
_LARGEST_FACTORIAL = 200
_TOLERANCE = Fraction(1, 10**6)

_WORDS = re.compile(r"\n|(?<![A-Za-z\\])[A-Za-z]{2}")
_MARKER = re.compile(r"answer is:?|answer:|^a:", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"-?\d[\d,]{0,99}(?:\.\d{1,100})?(?: ?/ ?-?\d{1,100})?%?|-?\.\d{1,100}%?")
_DECIMAL = r"(?:\d{1,3}(?:,\d{3}){1,30}(?:\.\d{0,100})?|\d{1,100}(?:\.\d{0,100})?|\.\d{1,100})"
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)(?P<top>{_DECIMAL})(?: ?/ ?(?P<bottom>{_DECIMAL}))?"
    r"(?P<percent> ?(?:%|percent))?"
    r"(?: (?!pi|sqrt|log|ln|sin|cos|tan|hundred|thousand|million|billion|trillion|dozen)[A-Za-z][A-Za-z ]{1,60})?"
)
_FRACTION = re.compile(r"(?P<sign>[-+]?)\\[dt]?frac(?:\{(?P<top>\d{1,100})\}\{(?P<bottom>\d{1,100})\}|(\d)(\d))")
_BOLD = re.compile(r"^\*\*([^*]+)\*\*")
_DRESS = re.compile(r"\\[!,;: ]|\\left(?![a-z])|\\right(?![a-z])|\\?\$|[€£]")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d})])\s*\\(?:text|mathrm|textbf|mbox)\{[^{}]*\}$")


@dataclass(frozen=True, kw_only=True)
class Math(Verifier):
    """1 if the final answer equals that of the ``answer`` column, else 0."""

    name: str = "math"

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response."""
        if len(response) > LONGEST_RESPONSE:
            return Verdict(0.0, f"longer than {LONGEST_RESPONSE} characters")
        predicted = marked_answer(response) or _unmarked_answer(response)
        if not predicted:
            return Verdict(0.0, "no final answer")
        return compare(predicted, marked_answer(answer) or answer)


def marked_answer(text: str) -> str:
    """Return the marked final answer of a solution, or an empty string; takes linear time."""
    at = text.rfind("\\boxed{")
    if at >= 0:
        return _braced(text[at + len("\\boxed{") : at + len("\\boxed{") + LONGEST_ANSWER + 1])
    at = text.rfind("####")
    if at >= 0:
        return _line(text[at + 4 :])
    marker = _last(_MARKER, text)
    return _line(text[marker.end() :]) if marker else ""


def compare(predicted: str, gold: str) -> Verdict:
    """Judge two final answers; bounded in time and memory whatever ``predicted`` holds."""
    if len(predicted) > LONGEST_ANSWER:
        return Verdict(0.0, f"final answer longer than {LONGEST_ANSWER} characters")
    predicted, gold = _undress(predicted), _undress(gold)
    if predicted == gold:
        return Verdict(1.0, "the same text")
    given, right = numbers(predicted), numbers(gold)
    if given and right:
        equal = any(_close(a, b) for a in given for b in right)
        return Verdict(float(equal), "equal numbers" if equal else "different numbers")
    for text in (predicted, gold):
        if not _mathematical(text):
            return Verdict(0.0, "different texts")
    if fault := too_hard(predicted) or too_hard(gold):
        return Verdict(0.0, fault)
    return _symbolic(predicted, gold)


def answer_key(answer: str) -> str | tuple[Fraction, ...]:
    """Return the key under which votes for one answer are counted: its number, however written, else its plain text."""
    plain = _undress(answer)
    return numbers(plain) or plain


def numbers(text: str) -> tuple[Fraction, ...]:
    """Return the values of a plain number: none if it is not one, number and hundredth if it is a percentage."""
    match = _PLAIN.fullmatch(text) or _FRACTION.fullmatch(text)
    if match is None:
        return ()
    group = match.groupdict()
    top, bottom = group["top"], group["bottom"]
    if top is None:  # \frac34
        top, bottom = match.group(4), match.group(5)
    value = Fraction(top.replace(",", "")) * (-1 if group["sign"] == "-" else 1)
    if bottom is not None:
        divisor = Fraction(bottom.replace(",", ""))
        if divisor == 0:
            return ()
        value /= divisor
    return (value, value / 100) if group.get("percent") else (value,)


def too_hard(text: str) -> str:
    """Return why this text must not go to symbolic mathematics, or an empty string."""
    if "__" in text or re.search(r"[A-Za-z]\s*\.\s*[A-Za-z_]|[;'\"`@]|\\(?:input|write|def|newcommand)", text):
        return "not mathematics"
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return f"brackets nested more than {DEEPEST} deep"
    if any(len(run) > _DIGITS for run in re.findall(r"\d+", text)):
        return f"a number of more than {_DIGITS} digits"
    text = text.replace("**", "^").replace(" ", "")
    if max(_towers(text), default=0) > _TOWER:
        return f"a tower of more than {_TOWER} powers"
    if any(int(exponent) > _LARGEST_EXPONENT for exponent in re.findall(r"\^[{(]*-?(\d+)", text)):
        return f"an exponent above {_LARGEST_EXPONENT}"
    if any(int(number) > _LARGEST_FACTORIAL for number in re.findall(r"(\d+)[)}]*!", text)):
        return f"a factorial above {_LARGEST_FACTORIAL}"
    return ""


def _towers(text: str) -> Iterator[int]:
    """Yield the heights of powers of powers: runs of ``^`` with one operand or open brackets between."""
    height, end = 0, -1
    for match in re.finditer(r"[\w.]*[})]*\^[{(]*-?", text):
        height = height + 1 if match.start() == end else 1
        end = match.end()
        yield height


@lru_cache(maxsize=4096)
def _symbolic(predicted: str, gold: str) -> Verdict:
    # Cached: the responses to one prompt repeat their answers.
    return bounded.judge("equal", gold, predicted)


def _close(a: Fraction, b: Fraction) -> bool:
    return abs(a - b) <= _TOLERANCE * min(Fraction(1), max(abs(a), abs(b)))


def _mathematical(text: str) -> bool:
    """Return True if there is something to calculate: a digit, a command, an operator or a single letter."""
    return bool(re.search(r"\d|\\[a-zA-Z]|[-+*/^=<>]|^[A-Za-z]$", text))


def _unmarked_answer(text: str) -> str:
    text = text.strip()
    if len(text) <= LONGEST_ANSWER and not _WORDS.search(text):
        return text
    number = _last(_NUMBER, text)
    return number.group() if number else ""


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _braced(text: str) -> str:
    """Return the text up to the closing brace, or all of it."""
    depth = 0
    for index, character in enumerate(text):
        if character == "}" and depth == 0:
            return text[:index].strip()
        depth += (character == "{") - (character == "}")
    return text.strip()


def _line(text: str) -> str:
    return text.lstrip()[: LONGEST_ANSWER + 1].partition("\n")[0].strip()


def _undress(text: str) -> str:
    """Remove dollar signs, spacing commands, emphasis, units, and a full stop at the end."""
    text = _TEXT.sub(r"\1", _UNIT.sub("", _DRESS.sub("", text))).replace("\\%", "%").replace("−", "-")
    text = _BOLD.sub(r"\1", " ".join(text.split())).strip("*_: ")
    return text.removesuffix(".").strip()
