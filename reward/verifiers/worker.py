"""The child process of ``bounded.py``: reads one JSON list per line, writes ``[score, reason]``.

Run as a script, never imported by this package. No text is evaluated. LaTeX is parsed by math-verify's grammar; its
parser of plain expressions (``sympy.parse_expr``, which calls ``eval``) is not used. But numbers in the grammar also
reach ``eval`` (``sympy.Number(text)`` sympifies), so SymPy's parser is replaced by one that reads only digits, before
the first line is read.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

MEMORY = 2 << 30  # bytes of address space; an allocation beyond raises MemoryError
_SOFT_SECONDS = 2  # math-verify's own timeout: cheaper than a kill, but it cannot interrupt a C call

Answer = tuple[float | None, str]
"""Score and reason; no score if the user's own pattern or schema is wrong."""


def main() -> None:
    """Answer until the parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answer = _KINDS[sys.argv[1]]()
    sys.setrecursionlimit(2000)
    _write("ready")
    for line in sys.stdin:
        try:
            _write(answer(*json.loads(line)))
        except (RecursionError, MemoryError, OverflowError) as error:
            _write((0.0, f"too large to judge ({type(error).__name__})"))


def _write(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _equal() -> Callable[..., Answer]:
    import importlib
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Float, Integer
    from sympy.parsing import sympy_parser

    def digits(text: str, *_: object, **__: object) -> Any:
        text = text.strip()
        if not text.isascii() or not text.replace(".", "", 1).isdigit():
            return _refuse()
        return Float(text) if "." in text else Integer(int(text))

    importlib.import_module("sympy.physics.units")  # simplification imports it later, and it parses names itself
    logging.disable(logging.CRITICAL)
    sympy_parser.__dict__.update(parse_expr=digits, eval_expr=_refuse)
    latex = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> list[Any]:
        return parse(f"\\boxed{{{text}}}", latex, fallback_mode="no_fallback", parsing_timeout=_SOFT_SECONDS)

    def equal(gold: str, predicted: str) -> Answer:
        begin = time.monotonic()
        right, given = read(gold), read(predicted)
        if right and given and verify(right, given, timeout_seconds=_SOFT_SECONDS):
            return 1.0, "symbolically equal"
        if time.monotonic() - begin > _SOFT_SECONDS:  # math-verify answers a timeout like a failure
            return 0.0, f"not decided within {_SOFT_SECONDS} seconds"
        if not right or not given:
            return 0.0, f"{'the right answer' if not right else 'the answer'} cannot be read as mathematics"
        return 0.0, "not symbolically equal"

    return equal


def _refuse(*_: object, **__: object) -> NoReturn:
    raise ValueError("neither evaluated nor guessed")


def _regex() -> Callable[..., Answer]:
    import re

    def found(pattern: str, text: str, where: str) -> Answer:
        match = re.fullmatch(pattern, text) if where == "full" else re.search(pattern, text)
        return float(match is not None), "the pattern matches" if match else "the pattern does not match"

    return found


def _schema() -> Callable[..., Answer]:
    import re

    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    def valid(schema_text: str, text: str) -> Answer:
        schema = json.loads(schema_text)
        try:
            value = json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            return 0.0, f"not JSON: {error}"
        # An empty registry: the default one fetches remote references.
        validator = validator_for(schema)(schema, registry=Registry())
        try:
            error = next(validator.iter_errors(value), None)
        except (Unresolvable, re.error) as fault:
            return None, f"the JSON schema cannot be used: {fault}"
        return (1.0, "valid") if error is None else (0.0, error.message[:200])

    return valid


_KINDS: dict[str, Callable[[], Callable[..., Answer]]] = {"equal": _equal, "regex": _regex, "schema": _schema}

if __name__ == "__main__":
    main()
