r"""Verifier of mathematics: numbers, fractions, percentages, and symbolic equality of LaTeX.

Where the final answer stands is in ``final_answer.py``. Without a mark it is the whole text in the ``answer`` column
(which may hold whole solutions, as in GSM8K); in a response it is the whole text if that is one line without words,
else the last number or formula.

Equal texts are equal, words too. Plain numbers are read here, exactly, and decide at once. Only the rest goes to
math-verify, in the killable process of ``bounded.py``, and only within the limits below. Nothing is ever evaluated as
code (CVE-2026-6878).

Two numbers are equal if they differ by at most 10⁻⁶, relative below 1 and absolute above, so that .333333 is ⅓. A
percentage is equal to its number and to its hundredth (12 % is 12 and .12), as in math-verify, and dozens to their
number and to twelve times it. Units ("18 dollars",
"$18") do not matter. The order of several answers matters if the right one is a tuple, ``(1, 2)``, and not if it is a
list or a set, ``1, 2`` or ``\{1, 2\}``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from reward.verdict import Verdict, Verifier
from reward.verifiers import bounded
from reward.verifiers.final_answer import (
    LONGEST_ANSWER,
    holds_words,
    is_mathematical,
    marked_readings,
    unmarked_readings,
)
from reward.verifiers.wording import NO_UNIT, holds_parts, in_ascii_digits, in_symbols

__all__ = ["Math", "answer_key", "compare", "numbers"]

LONGEST_RESPONSE = 1_000_000  # characters; more is no answer
DEEPEST = 20  # nested brackets
_TOWER = 2  # powers of powers
_DIGITS = 40  # of a number that goes to symbolic comparison
_LARGEST_EXPONENT = 10_000  # also of the upper bound of a sum
_LARGEST_FACTORIAL = 200
_TOLERANCE = Fraction(1, 10**6)

_DECIMAL = (
    r"(?:\d{1,3}(?:(?:,\d{3}){1,30}|(?: \d{3}){1,30})(?:\.\d{0,100})?|\d{1,100}(?:\.\d{0,100})?|\.\d{1,100})"
    r"(?:[eE][-+]?\d{1,3}(?!\w))?"
)
_MEASURE = (  # units that are not one word: m/s, km/h, kg/m³, cm²
    r"(?:(?:[kcm]?m|ft|mi|in|k?g|[mk]?[lL])/(?:s|h|hr|min|[kcm]?m|ft|k?g|m?[lL]|day)|[kcm]m|ft|in|mi)"
    r"(?:\^?[23]|\^\{[23]\}|[²³])?"
)
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<whole>\d{{1,30}}) (?=\d{{1,2}} ?/))?(?P<top>{_DECIMAL})(?: ?/ ?(?P<bottom>{_DECIMAL}))?"
    r"(?P<percent> ?(?:%|percent))?(?P<dozen> dozen)?"
    rf"(?: (?!pi|sqrt|log|ln|sin|cos|tan|(?:[^\W\d_]+ )*{NO_UNIT}\b)[^\W\d_][^\W\d_ ]{{1,60}}| ?{_MEASURE})?"
)
_FRACTION = re.compile(r"(?P<sign>[-+]?)\\[dt]?frac(?:\{(?P<top>\d{1,100})\}\{(?P<bottom>\d{1,100})\}|(\d)(\d))")
_BASE = re.compile(
    r"(?P<sign>[-+]?)(?:0x(?P<hex>[\da-fA-F]{1,30})|(?P<digits>\d[\da-fA-F]{0,60})_(?:\{(?P<base>\d\d?)\}|(?P<digit>\d)))"
)
_RECURRING = re.compile(r"(?<![\d.])(?P<whole>\d{0,30})\.(?P<fixed>\d{0,30})\\(?:overline|bar)\{(?P<again>\d{1,30})\}")
_SEPARATED = re.compile(  # thousands by ', by full stops if there are two, or by anything before a decimal comma
    r"(?<![\d.,'’])\d{1,3}(?:(?:['’]\d{3})+(?!\d)|(?:\.\d{3}){2,}(?![\d.,])"
    r"|(?:(?:\.\d{3})+|(?: \d{3})+),(?P<decimals>\d{1,2})(?![\d.,]))"
)
_VULGAR = re.compile(r"(?<![\d.,])(\d{0,30}) ?([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_SUPERSCRIPT = re.compile(r"(?<=[\w)\]}])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9}")
_POWER = re.compile(r"\^(?:\(([^()]*)\)| ?([-−]\d{1,10}))")
_ROOT = re.compile(r"√ ?(?:(\d{1,100})|\(([^()]*)\))|(?<![A-Za-z\\])sqrt\(([^()]*)\)")
_FUNCTION = re.compile(r"(?<![A-Za-z\\])(?<!operatorname\{)(?=(?:pi|log|ln|sin|cos|tan|exp)(?![A-Za-z]))")
_SIGNS = {
    **{"**": "^", "*": "\\cdot ", "·": "\\cdot ", "⋅": "\\cdot ", "×": "\\times ", "÷": "/", "π": "\\pi "},
    **{"∞": "\\infty ", "∅": "\\emptyset ", "\\varnothing": "\\emptyset "},
}
_BOLD = re.compile(r"^\*\*([^*]+)\*\*")
_THOUSANDS = re.compile(r"(?<=\d)\s*(?:,\s*\\!|\{\s*,\s*\})\s*(?=\d{3})")
_DRESS = re.compile(r"(?<!\\)\\[!,;: ()\[\]]|\\q?quad\b|\\left(?![a-z])|\\right(?![a-z])|\\?\$|[€£¥₹]")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    rf"(?<=[\d}})])\s*\\(?:text|mathrm|textbf|mbox)\{{(?![^{{}}]*\b{NO_UNIT}\b)[^{{}}]*\}}(?:\^(?:[23]|\{{[23]\}}))?$"
)
_DEGREES = re.compile(r"^([-+]?[\d.,/]+) ?(?:[°º][CF]?|\^(?:\\circ|\{ ?\\circ ?\}))$")
_AND = re.compile(r"\s*[,;]?\s*(?<![A-Za-z])(?:and|or)(?![A-Za-z])\s*")
_STEPS = re.compile(r"^[\d\s.,+\-*/×÷^()%=]*=\s*(?=[^=\s])")  # of a calculation: 3 + 4 = 7 is 7
_DECIMAL_COMMA = re.compile(r"^([-+]?\d{1,100}),(\d{1,2})(?!\d)(?=\D*$)")
_PUNCTUATION = re.compile(r"\s*([^\w\s.])\s*")


@dataclass(frozen=True, kw_only=True)
class Math(Verifier):
    """1 if the final answer equals that of the ``answer`` column, else 0."""

    name: str = "math"

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response."""
        if len(response) > LONGEST_RESPONSE:
            return Verdict(0.0, f"longer than {LONGEST_RESPONSE} characters")
        response = self.read_marked(response)
        given = marked_readings(response)
        if given is None:
            given = unmarked_readings(response)
        if not given:
            return Verdict(0.0, "no final answer")
        right = marked_readings(answer) or (answer,)
        if not {_words(text) for text in given}.isdisjoint(map(_words, right)):
            return Verdict(1.0, "the same text")
        return compare(given[-1], right[-1])


def compare(predicted: str, gold: str) -> Verdict:
    """Judge two final answers; bounded in time and memory whatever ``predicted`` holds."""
    if len(predicted) > LONGEST_ANSWER:
        return Verdict(0.0, f"final answer longer than {LONGEST_ANSWER} characters")
    if _words(predicted) == _words(gold):
        return Verdict(1.0, "the same text")
    predicted, gold = _undress(predicted), _undress(gold)
    if "." in gold or "." in predicted:  # otherwise 1,5 is a list
        predicted, gold = _DECIMAL_COMMA.sub(r"\1.\2", predicted), _DECIMAL_COMMA.sub(r"\1.\2", gold)
    given, right = numbers(predicted), numbers(gold)
    if given and right:
        equal = any(_close(a, b) for a in given for b in right)
        return Verdict(float(equal), "equal numbers" if equal else "different numbers")
    for text in (predicted, gold):
        if not is_mathematical(text):
            return Verdict(0.0, "different texts")
        if holds_words(text) and holds_parts(text):
            return Verdict(0.0, "several numbers in words, or a part of one")
    predicted, gold = _latex(predicted), _latex(gold)
    predicted, gold = (_AND.sub("; " if "=" in text else ", ", text) for text in (predicted, gold))
    if fault := too_hard(predicted) or too_hard(gold):
        return Verdict(0.0, fault)
    return _symbolic(predicted, gold)


def answer_key(answer: str) -> str | tuple[Fraction, ...]:
    """Return the key under which votes for one answer are counted: its number, however written, else its plain text."""
    plain = _undress(answer)
    return numbers(plain) or plain


def numbers(text: str) -> tuple[Fraction, ...]:
    """Return the values of a plain number: none if it is not one, two of a percentage or of dozens."""
    match = _PLAIN.fullmatch(text) or _FRACTION.fullmatch(text)
    if match is None:
        return _in_another_base(text)
    group = match.groupdict()
    top, bottom = group["top"], group["bottom"]
    if top is None:  # \frac34
        top, bottom = match.group(4), match.group(5)
    value = Fraction(re.sub("[, ]", "", top)) * (-1 if group["sign"] == "-" else 1)
    if bottom is not None:
        divisor = Fraction(re.sub("[, ]", "", bottom))
        if divisor == 0:
            return ()
        value /= divisor
    if group.get("whole"):
        value += Fraction(group["whole"]) * (-1 if group["sign"] == "-" else 1)
    if group.get("percent"):
        return value, value / 100
    return (value, value * 12) if group.get("dozen") else (value,)


def _in_another_base(text: str) -> tuple[Fraction, ...]:
    match = _BASE.fullmatch(text)
    if match is None:
        return ()
    base = int(match["base"] or match["digit"] or 16)
    try:
        value = int(match["digits"] or match["hex"], base) if base > 1 else 0
    except ValueError:  # a digit that the base does not have
        return ()
    return (Fraction(-value if match["sign"] == "-" else value),) if base > 1 else ()


def too_hard(text: str) -> str:
    """Return why this text must not go to symbolic mathematics, or an empty string."""
    if "__" in text or re.search(r"[A-Za-z]\s*\.\s*[A-Za-z_]|['\"`@]|\\(?:input|write|def|newcommand)", text):
        return "not mathematics"
    if re.search(r"\d\.\d+\.\d|\d[年月년월] ?\d", text) or re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return "a date or version"
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


def _undress(text: str) -> str:
    """Remove dollar signs, spacing commands, emphasis, units, steps of a calculation, and a full stop at the end."""
    text = _THOUSANDS.sub(",", in_ascii_digits(text))
    text = _DRESS.sub(lambda match: " " if "quad" in match.group() else "", text)
    text = _TEXT.sub(r"\1", _UNIT.sub("", text.rstrip(" .。"))).replace("\\%", "%").replace("−", "-")
    text = _RECURRING.sub(_recurring, _VULGAR.sub(_fraction, text))
    text = _BOLD.sub(r"\1", " ".join(text.split())).strip("*_: ")
    text = _SEPARATED.sub(_joined, text)
    return _DEGREES.sub(r"\1", _STEPS.sub("", in_symbols(text.removesuffix(".").strip())))


def _joined(match: re.Match[str]) -> str:
    """Return the digits of a number without separators, with a point before the decimals."""
    digits, decimals = re.sub(r"\D", "", match.group()), match["decimals"]
    return digits.removesuffix(decimals) + "." + decimals if decimals else digits


def _recurring(match: re.Match[str]) -> str:
    """Return the fraction that a recurring decimal is: 0.1\\overline{6} = (16 − 1)/90."""
    fixed, again = match["fixed"], match["again"]
    before = int(match["whole"] + fixed or "0")
    bottom = (10 ** len(again) - 1) * 10 ** len(fixed)
    return f"{before * (10 ** len(again) - 1) + int(again)}/{bottom}"


def _fraction(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match.group(2)).split("⁄")
    top, bottom = int(fraction[0]), int(fraction[1])
    top += int(match.group(1) or 0) * bottom
    text = match.string
    alone = match.start() < 4 and not text[: match.start()].strip("-+ ")
    if alone and re.compile(r" ?(?:[A-Za-z%]|$)").match(text, match.end()):
        return f"{top}/{bottom}"
    return f"\\frac{{{top}}}{{{bottom}}}"


def _latex(text: str) -> str:
    """Return plain arithmetic as LaTeX: 2**3, 2³, 2 × 3 and sqrt(2) as it writes them."""
    text = _SUPERSCRIPT.sub(
        lambda match: f"^{{{unicodedata.normalize('NFKC', match.group())}}}".replace("−", "-"), text
    )
    text = re.sub(r"\*\*|[*·⋅×÷π∞∅]|\\varnothing", lambda match: _SIGNS[match.group()], text)
    text = _FUNCTION.sub(r"\\", _ROOT.sub(lambda match: f"\\sqrt{{{match.group(match.lastindex or 0)}}}", text))
    return _POWER.sub(lambda match: f"^{{{match.group(match.lastindex or 0)}}}", text)


def _words(text: str) -> str:
    """Return the text as it is compared with another one: single letters keep their case, words do not."""
    plain = _PUNCTUATION.sub(r"\1", _undress(text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    plain = re.sub(r"^\(([A-Za-z])\)$", r"\1", plain)
    return plain.casefold() if re.search(r"[A-Za-z]{2}", plain) and "\\" not in plain else plain
