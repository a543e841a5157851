"""Equations that a solution annotates as ``<<3+4=7>>`` (GSM8K; Cobbe et al. 2021): found, checked, made into a key.

Models write the solutions, so nothing here is evaluated as code: Python's parser gives the tree of an expression of at
most ``LONGEST_EQUATION`` characters of arithmetic, and only numbers and operators are evaluated, no large powers.

By default numbers are exact fractions, may have thousands separators, dollar and percent signs (50 % is .5; alone on a
right-hand side also 50, since people write ``1/4*100=25%``), and all sides of ``a=b=c`` must agree. The filter of the
RFT authors (github.com/OFA-Sys/gsm8k-ScRel, ``collect_rejection_sampling.py``: ``strict_reference=True``) reads floats
as Python does, so that such signs are errors, and looks at the first two sides only. It calls ``eval``; here arithmetic
without scientific notation is parsed, and anything else (names, calls, texts) is a wrong equation. Both allow an
absolute difference of 10⁻³.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Context
from fractions import Fraction
from typing import Any

__all__ = ["LONGEST_EQUATION", "equations", "is_correct", "normalize", "path_key"]

LONGEST_EQUATION = 300  # characters; longer ones count as wrong. The longest one of GSM8K has 36
_MOST_BITS = 4096  # of the result of a power
_TOLERANCE = 1e-3

_ANNOTATION = re.compile(r"<<([^>]*)(>>|>|\Z)")  # consumes what is not closed: linear on "<<<<<<…"
_ARITHMETIC = re.compile(r"[0-9.+\-*/%() ]+")
_NUMBER = re.compile(
    r"(?<![0-9.,])(?P<digits>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?![0-9.,])"
    r"(?P<percent> ?%(?! *[0-9.(]))?"  # "17 % 5" is a remainder
)
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "$": None})
_EXACT = Context(prec=LONGEST_EQUATION)

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: _power(base, exponent),
}


def equations(text: str) -> list[str]:
    """Return the contents of each ``<<…>>``, in order and unchanged, in linear time."""
    return [match[1] for match in _ANNOTATION.finditer(text) if match[2] == ">>"]


def path_key(text: str, *, strict_reference: bool = False) -> str:
    """Return the ordered equations of a reasoning path, joined by ``|``; paths are equal if their keys are."""
    if strict_reference:
        return "|".join(equations(text)).replace(" ", "")
    return "|".join(normalize(equation) for equation in equations(text))


def normalize(equation: str) -> str:
    """Return the equation without spaces, dollar signs and thousands separators: ``50% * 1,400 = $700.00`` is
    ``0.5*1400=700``.
    """
    return "".join(_plain(equation).split())


def is_correct(equation: str, *, strict_reference: bool = False) -> bool:
    """Return True if all sides of ``a=b=…`` have the same value. Bounded in time and memory."""
    if len(equation) > LONGEST_EQUATION:
        return False
    try:
        if strict_reference:
            left, right = equation.split("=")[:2]
            return abs(float(_value(left, number=_python_number)) - float(right)) < _TOLERANCE
        first, *others = equation.split("=")
        value = _value(_plain(first), number=_exact_number)
        return bool(others) and all(any(abs(value - x) <= _TOLERANCE for x in _readings(side)) for side in others)
    except (ArithmeticError, SyntaxError, TypeError, ValueError):  # TypeError: a complex root
        return False


def _readings(side: str) -> tuple[Any, ...]:
    """Return the possible values of a right-hand side: a bare percentage is the hundredth or the number."""
    value = _value(_plain(side), number=_exact_number)
    bare = _NUMBER.fullmatch(side.translate(_SIGNS).strip())
    return (value, 100 * value) if bare and bare["percent"] else (value,)


def _plain(text: str) -> str:
    """Write each number in Python's form; adjacent numbers stay apart."""
    return _NUMBER.sub(_plain_number, text.translate(_SIGNS))


def _plain_number(match: re.Match[str]) -> str:
    number = _EXACT.create_decimal(match["digits"].replace(",", ""))
    return f"{_EXACT.normalize(_EXACT.scaleb(number, -2) if match['percent'] else number):f}"


def _value(text: str, *, number: Callable[[int | float], Any]) -> Any:
    if not _ARITHMETIC.fullmatch(text):
        raise ValueError("not arithmetic")
    return _evaluate(ast.parse(text.strip(), mode="eval").body, number)


def _evaluate(node: ast.expr, number: Callable[[int | float], Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return number(value)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, number)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_evaluate(left, number), _evaluate(right, number))
        case _:
            raise ValueError("not arithmetic")


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int | Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) > _MOST_BITS:
            raise OverflowError("the power is too large")
    return base**exponent


def _python_number(value: int | float) -> int | float:
    return value


def _exact_number(value: int | float) -> Fraction:
    return Fraction(repr(value))
