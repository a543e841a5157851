"""``docs/benchmarks.md``, made of its template and of what the benchmarks left in ``docs/benchmarks/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from align.system.files import read_json
from benchmarks.models import VOCABULARY

__all__ = ["page"]

_STEPS = ("dpo", "sft", "kto", "reward", "rrhf")
"""Benchmarks of an optimiser step, whose results share a table."""


def page(docs: Path) -> str:
    """Return the page; a file holds one result, or a list of them."""
    found: list[dict[str, Any]] = []
    for file in sorted((docs / "benchmarks").glob("*.json")):
        content = read_json(file)
        found.extend(content if isinstance(content, list) else [content])
    environment = Environment(
        loader=FileSystemLoader(docs),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        trim_blocks=True,
    )
    environment.filters |= {"ratio": _ratio, "work": _work, "peer": _peer, "number": _number, "conditions": _conditions}
    steps = [one for one in found if one["benchmark"] in _STEPS]
    return environment.get_template("benchmarks.md.jinja").render(
        steps=sorted(
            steps, key=lambda one: (_STEPS.index(one["benchmark"]), str(one["settings"]["model"]), _peer(one))
        ),
        others=[one for one in found if one["benchmark"] not in _STEPS],
    )


def _ratio(values: Mapping[str, float]) -> str:
    """A median with its quartiles, without the zero before the point."""
    median, q1, q3 = (f"{values[name]:.2f}".removeprefix("0") for name in ("median", "q1", "q3"))
    return f"{median} ({q1}–{q3})"


def _number(value: float, digits: int = 2) -> str:
    """A number, without the zero before the point."""
    text = f"{value:,.{digits}f}"
    return text.removeprefix("0") if digits else text


def _conditions(results: Sequence[Mapping[str, Any]]) -> str:
    """Versions of the results, which may be of several times."""
    found = {
        f"TRL {one['settings']['versions']['trl']}, PyTorch {one['settings']['versions']['torch']}." for one in results
    }
    return " ".join(sorted(found))


def _work(result: Mapping[str, Any]) -> str:
    """The work of a step, in words."""
    settings = result["settings"]
    vocabulary = f", vocabulary {settings['vocabulary']:,}" if settings["vocabulary"] != VOCABULARY else ""
    model = settings["model"] or f"LLaMA {settings['model_parameters'] / 1e6:.0f}M{vocabulary}"
    data = settings["data"].removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return f"{result['benchmark']}: {settings['pairs']} of `{data}`, {model}, {settings['dtype']}"


def _peer(result: Mapping[str, Any]) -> str:
    return result["settings"].get("peer", "flat layout")
