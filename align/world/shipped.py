"""Paths and rows of the shipped models and files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from align.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent / "assets"
FILES = {
    "base": "base",
    "sft": "sft",
    "pairs.jsonl": "pairs.jsonl.gz",
    "heldout.jsonl": "heldout.jsonl.gz",
    "demonstrations.jsonl": "demonstrations.jsonl.gz",
    "prompts.jsonl": "prompts.jsonl.gz",
}


def asset(name: str) -> Path:
    """Return the path of a shipped model folder ("base", "sft") or file ("pairs.jsonl", …, gzipped).

    Raises:
        UserError: the name is unknown, or the asset has not been made in this checkout.
    """
    key = name.removesuffix(".gz")
    key = key if key in FILES else f"{key}.jsonl"
    if key not in FILES:
        raise UserError(f"world/{name}: there are {', '.join(FILES)}.{did_you_mean(name, list(FILES))}")
    path = FOLDER / FILES[key]
    if not path.exists():
        raise UserError(f"world/{name} is not in this checkout: make it with scripts/make_world.py.")
    return path


def read_rows(file_or_name: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a shipped file (by name), or of another gzipped JSON lines file (by path)."""
    path = file_or_name if isinstance(file_or_name, Path) else asset(file_or_name)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def heldout_prompts(split: str = "seen") -> list[dict[str, Any]]:
    """Return the evaluation prompts of a split, with their `answer`.

    "seen": families and templates of the training data with other goals; "template": held-out templates; "family":
    held-out families; "all": all three.
    """
    rows = read_rows("prompts.jsonl")
    found = [row for row in rows if split == "all" or row["source"].split("/")[1] == split]
    if not found:
        raise UserError(f"split={split}: choose seen, template, family or all.")
    return found
