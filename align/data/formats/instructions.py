"""Prompts with instructions that a program can check (Zhou et al. 2023, arXiv 2311.07911)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, shared_fields
from align.data.load_report import RowError

__all__ = ["INSTRUCTIONS"]


def _instructions(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    ids, arguments = row["instruction_id_list"], row["kwargs"]
    if not isinstance(ids, list) or not isinstance(arguments, list):
        raise RowError("instruction_id_list and kwargs are not both lists")
    count = len(cast(list[Any], ids))
    if not count or count != len(cast(list[Any], arguments)):
        raise RowError("instruction_id_list and kwargs are not of one length, at least 1")
    fields = {"prompt": row["prompt"], "answer": json.dumps({"instruction_id_list": ids, "kwargs": arguments})}
    yield shared_fields(row) | fields


INSTRUCTIONS = Format(
    name="instructions",
    description="prompt, instruction_id_list, kwargs; the instructions become the answer to verify",
    polarity="no preference: prompts only",
    requires=frozenset({"prompt", "instruction_id_list", "kwargs"}),
    convert=_instructions,
    gives="prompts",
    optional=SHARED_COLUMNS | {"key"},
)
