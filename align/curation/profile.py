"""Tables and pictures of a data set: lengths, turns, sources, scores and margins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.system.charts import chart

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences

__all__ = ["WORD", "plot_profile", "profile"]

_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
"""A word; in scripts without blanks between words a character."""
_QUANTILES = {"least": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}


def profile(data: Preferences, tokenized: TokenizedPreferences | None = None) -> dict[str, Any]:
    """Return counts of rows and prompts, and the distribution of each quantity of the data.

    Lengths are in words, and with ``tokenized`` in tokens. Each distribution has ``n``, ``mean`` and quantiles.
    """
    values: dict[str, list[float]] = {}
    kinds, sources = Counter[str](), Counter[str]()
    for row in data:
        kinds[_kind(row)] += 1
        sources[row["source"] or "(none)"] += 1
        _add(values, "words of a prompt", sum(_words(message) for message in row["prompt"]))
        _add(values, "turns of a prompt", len(row["prompt"]))
        for side in ("chosen", "rejected"):
            if row[side]:
                _add(values, f"words, {side}", _words(row[side][0]))
            if row[f"{side}_score"] is not None:
                _add(values, f"score, {side}", row[f"{side}_score"])
        if row["margin"] is not None:
            _add(values, "margin", row["margin"])
        elif None not in (row["chosen_score"], row["rejected_score"]):
            _add(values, "score, chosen − rejected", row["chosen_score"] - row["rejected_score"])
    for example in tokenized or ():
        _add(values, "tokens of a prompt", len(example.prompt_ids))
        for ids in example.responses:
            _add(values, "tokens of a response", len(ids))
    return {
        "rows": len(data),
        "prompts": len(set(data.dataset["prompt_id"])),
        "kinds": dict(kinds.most_common()),
        "sources": dict(sources.most_common()),
        "distributions": {name: _distribution(found) for name, found in values.items()},
    }


def plot_profile(data: Preferences, picture: Path) -> None:
    """Draw histograms of the lengths of prompts and answers, chosen and rejected over each other."""
    lengths = {side: [_words(row[side][0]) for row in data if row[side]] for side in ("chosen", "rejected")}
    prompts = [sum(_words(message) for message in row["prompt"]) for row in data]
    with chart(picture, (10, 3.4), rows=1, columns=2) as (left, right):
        left.hist(prompts, bins=_bins(prompts), color="#6b7785")
        left.set(xlabel="words of a prompt", ylabel="rows")
        everything = [length for found in lengths.values() for length in found]
        for (side, found), colour in zip(lengths.items(), ("#2a7f3f", "#b03a2e"), strict=True):
            if found:
                right.hist(found, bins=_bins(everything), histtype="step", linewidth=1.6, color=colour, label=side)
        right.set(xlabel="words of an answer", ylabel="rows")
        if everything:
            right.legend(fontsize=8)


def _kind(row: dict[str, Any]) -> str:
    sides = (row["chosen"] is not None, row["rejected"] is not None)
    names = {(True, True): "pairs", (True, False): "demonstrations", (False, True): "bad answers alone"}
    return names.get(sides, "prompts alone")


def _words(message: dict[str, Any]) -> int:
    return len(WORD.findall(message["content"]))


def _add(values: dict[str, list[float]], name: str, value: float) -> None:
    values.setdefault(name, []).append(value)


def _distribution(values: Sequence[float]) -> dict[str, float]:
    quantiles = {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}
    return {"n": len(values), "mean": float(np.mean(values)), **quantiles}


def _bins(values: Sequence[float]) -> Any:
    """Thirty bins up to the 99th percentile, so that one very long text does not squeeze all others into one."""
    return np.linspace(0, max(1.0, float(np.quantile(values, 0.99)) if values else 1.0), 31)
