"""GSM8K (Cobbe et al. 2021): school mathematics whose solutions end in the answer, ``#### 72``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from align.data.formats.base import Format, Sample, shared_fields
from align.data.load_report import RowError
from align.data.messages import kind

__all__ = ["GSM8K"]

_MARKER = "\n#### "
_NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


def _gsm8k(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    solution = row["answer"]
    if not isinstance(solution, str):
        raise RowError("answer is not a solution", f"is a {kind(solution)}")
    steps, marker, answer = solution.rpartition(_MARKER)
    if not marker:
        raise RowError("the solution has no #### answer")
    if not steps.strip():
        raise RowError("the solution has no steps")
    if not _NUMBER.fullmatch(answer.strip()):
        raise RowError("#### is not followed by a number", repr(answer[:40]))
    gold = answer.strip().replace(",", "")
    fields = {"prompt": row["question"], "chosen": solution, "answer": gold}
    yield {"source": "gsm8k"} | shared_fields(row) | fields


def _recognises(sample: Sample) -> bool:
    """Return whether most rows have a solution with a final answer, and no responses."""
    if {"chosen", "rejected"} & sample.columns:
        return False
    answers = [row.get("answer") for row in sample.rows]
    return 2 * sum(isinstance(answer, str) and _MARKER in answer for answer in answers) > len(answers)


GSM8K = Format(
    name="gsm8k",
    description="question, answer as a solution that ends in #### and a number (GSM8K)",
    polarity="no preference: the solution is a demonstration, its final number the answer to verify",
    requires=frozenset({"question", "answer"}),
    convert=_gsm8k,
    gives="demonstrations",
    recognises=_recognises,
)
