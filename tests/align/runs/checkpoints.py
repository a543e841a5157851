"""A small checkpoint: two files of the run and one of its rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.runs.checkpoint import CheckpointStore
from align.system.identity import Identity


def store(folder: Path, keep: int = 2, **identity: Any) -> CheckpointStore:
    return CheckpointStore(folder, Identity(identity or {"seed": 0}), keep=keep, rank=0, barrier=lambda: None)


def save(checkpoints: CheckpointStore, step: int) -> Path:
    def shared(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_bytes(bytes([step]) * 100)
        (folder / "optimizer").write_text("{}")

    return checkpoints.save(step, {"n": step}, shared=shared, own=lambda f: (f / "random-0").write_text("1") and None)
