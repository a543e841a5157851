"""The files of a run, without the times it took: two runs that did the same are equal."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

_TIMES = ("seconds", "milliseconds", "tokens_per_second")


def left_by(run: Path, *, checkpoints: int = 2) -> dict[str, Any]:
    """Parameters, optimiser, random states, roll-outs, logs, evaluations and ``best/`` of a run, by file."""
    kept = sorted(run.glob("checkpoints/step-*"))[-checkpoints:]
    found: dict[str, Any] = {"checkpoints": [folder.name for folder in kept]}
    for folder in (*kept, run / "final", run / "best"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.name.startswith("manifest."):
                found[str(file.relative_to(run))] = _content(file)
    for name in ("metrics.jsonl", "samples.jsonl", "ordered_pairs.jsonl", "warnings.jsonl", "candidates.jsonl"):
        if (run / name).exists():
            found[name] = [_timeless(json.loads(line)) for line in (run / name).read_text().splitlines()]
    if (run / "evaluation.json").exists():
        found["evaluation.json"] = json.loads((run / "evaluation.json").read_text())
    return found


def differing(one: Path, other: Path, *, checkpoints: int = 2) -> list[str]:
    """Names of the files in which two runs, or recipes of several, differ; empty: they are the same."""
    out: list[str] = []
    for place in stages(one):
        name = place.relative_to(one)
        left, right = left_by(place, checkpoints=checkpoints), left_by(other / name, checkpoints=checkpoints)
        out += [str(name / file) for file in sorted({*left, *right}) if left.get(file) != right.get(file)]
    return out


def untidy(run: Path) -> list[str]:
    """Faults in the files of a finished run: a step logged twice, leftovers, a missing report."""
    out: list[str] = [str(path) for path in run.rglob(".*") if path.name.startswith((".partial-", ".old-"))]
    for place in stages(run):
        if (place / "metrics.jsonl").exists():
            logged = Counter(_kind(json.loads(line)) for line in (place / "metrics.jsonl").read_text().splitlines())
            out += [f"{place.name}: {kind} {number} times" for kind, number in logged.items() if number > 1]
            out += [f"{place.name}: no {name}" for name in ("report.html", "final") if not (place / name).exists()]
    return out


def stages(run: Path) -> list[Path]:
    """The run, or the stages of a recipe."""
    return sorted(run.glob("[0-9]*-*")) or [run]


def _kind(record: dict[str, Any]) -> tuple[int, str]:
    return record["step"], next(name.split("/")[0] for name in record if name != "step")


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return {name: tensor.view(-1).tolist() for name, tensor in load_file(file).items()}
    return file.read_bytes()


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in record.items() if name.split("/")[-1] not in _TIMES and "/seconds/" not in name
    }
