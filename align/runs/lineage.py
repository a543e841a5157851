"""Artifacts that a run is made of and makes, which W&B links into a lineage.

The rows of data never leave the machine: a dataset is its fingerprint and the report of its loading, candidates are
the state of their file. An artifact has the same name wherever it is met, so that the run that made it and the run
that uses it meet in W&B.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.candidates.store import state_file
from align.system.files import read_json
from align.system.identity import hashed
from align.system.redaction import redact_strings

if TYPE_CHECKING:
    from align.data import Preferences

__all__ = ["TRACKER_IDS", "Artifact", "candidates", "dataset", "trained", "used"]

TRACKER_IDS = "trackers.json"
"""In the folder of a run: what each tracker calls it."""


@dataclass(frozen=True)
class Artifact:
    """Files under a name."""

    name: str
    type: str
    """dataset, candidates, model."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """By the name in the artifact."""
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Small files that are nowhere else."""
    reference: Path | None = None
    """A folder that is named and not sent."""


def dataset(data: Preferences) -> Artifact:
    """Describe data by fingerprint and the counts of its loading."""
    report = asdict(data.report)
    del report["examples"]  # they quote rows
    text = json.dumps(redact_strings({"fingerprint": data.fingerprint, **report}), ensure_ascii=False, indent=1)
    found = {"fingerprint": data.fingerprint, "rows": len(data), "source": data.report.source}
    return Artifact(f"data-{_short(data.fingerprint)}", "dataset", found, texts={"report.json": text})


def candidates(file: str | Path) -> Artifact | None:
    """Describe a file of drawn candidates by its state; None for other data."""
    state: Mapping[str, Any] | None = read_json(state_file(Path(file))) if str(file).endswith(".jsonl") else None
    if state is None or not {"settings", "counts", "bytes"} <= set(state):
        return None
    name = f"candidates-{_short(dict(state))}"
    return Artifact(name, "candidates", dict(state["counts"]), files={"candidates.json": state_file(Path(file))})


def trained(final: Path) -> Artifact | None:
    """Describe what a run that W&B knows has trained; None for other folders. Adapters are sent, whole models named."""
    run = (read_json(final.parent / TRACKER_IDS) or {}).get("wandb")
    if run is None or not final.is_dir():
        return None
    adapters = any(final.rglob("adapter_config.json"))
    files = {str(file.relative_to(final)): file for file in sorted(final.rglob("*")) if file.is_file()}
    return (
        Artifact(f"model-{run}", "model", files=files)
        if adapters
        else Artifact(f"model-{run}", "model", reference=final)
    )


def used(data: Preferences, config: Mapping[str, Any]) -> list[Artifact]:
    """List what a run uses: its data, the candidates that they are, the models that it begins from and is rewarded by.

    Args:
        data: The training data.
        config: Content of ``config.yaml``.
    """
    found: list[Artifact | None] = [dataset(data)]
    given = {name: config[name] for name in ("data", "model", "reward") if isinstance(config.get(name), Mapping)}
    sources = given.get("data", {}).get("train") or ()
    found += [candidates(source) for source in ((sources,) if isinstance(sources, str) else sources)]
    models = [given.get("model", {}).get(name) for name in ("name", "start")] + [given.get("reward", {}).get("model")]
    for model in (Path(model) for model in models if model):
        found.append(trained(model.parent if model.name == "reward" else model))
    return [artifact for artifact in found if artifact is not None]


def _short(value: Any) -> str:
    return hashed(value).rpartition(":")[2][:12]
