"""Metrics of a run: ``metrics.jsonl`` always, Weights & Biases when asked for.

Whatever happens to W&B, training goes on and the local log is complete.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.config import WandbConfig
    from align.evaluation import Sample

_log = logging.getLogger(__name__)


class Tracker:
    """Writes metrics on rank 0; on other ranks it does nothing."""

    def __init__(
        self, folder: Path, *, enabled: bool, wandb: WandbConfig | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.enabled = enabled
        self._wandb: Any = None
        if enabled and wandb is not None and wandb.mode != "disabled":
            self._wandb = _start_wandb(folder, wandb, config or {})

    def truncate(self, step: int) -> None:
        """Forget what was logged after ``step``: the resumed run will log those steps again."""
        if not self.enabled or not self.path.exists():
            return
        records = read_metrics(self.path)
        kept = [record for record in records if record["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        temporary.replace(self.path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one record."""
        if not self.enabled:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._to_wandb(lambda run: run.log(dict(metrics), step=step))

    def log_samples(self, step: int, before: Sequence[Sample], after: Sequence[Sample], *, limit: int) -> None:
        """Show a table of samples in W&B; the run folder has them in ``samples.jsonl``."""

        def send(run: Any) -> None:
            import wandb

            rows: Any = [[b.prompt, b.response, a.response] for b, a in zip(before, after, strict=True)]
            columns: Any = ["prompt", "before", "after"]
            run.log({"samples": wandb.Table(columns=columns, data=rows[:limit])}, step=step)

        self._to_wandb(send)

    def close(self, exit_code: int = 0) -> None:
        """Finish the W&B run."""
        self._to_wandb(lambda run: run.finish(exit_code=exit_code))
        self._wandb = None

    def _to_wandb(self, send: Any) -> None:
        if self._wandb is None:
            return
        try:
            send(self._wandb)
        except Exception as error:
            _log.warning("W&B stopped accepting metrics (%s); metrics.jsonl goes on alone.", error)
            self._wandb = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a last line cut by a kill is left out."""
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
    return records


def _start_wandb(folder: Path, settings: WandbConfig, config: Mapping[str, Any]) -> Any:
    import wandb

    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            tags=list(settings.tags),
            name=folder.name,
            dir=folder,
            mode=settings.mode,
            config=dict(config),
            settings=wandb.Settings(init_timeout=30, silent=True),
        )
    except (wandb.Error, OSError) as error:
        _log.warning("W&B could not be reached (%s); metrics.jsonl goes on alone.", error)
        return None
