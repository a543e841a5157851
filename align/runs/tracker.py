"""Metrics and samples of a run: ``metrics.jsonl`` and ``samples.jsonl`` always, Weights & Biases when asked for.

If W&B fails, training goes on and the local log stays complete.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.system.files import write_text

if TYPE_CHECKING:
    from align.evaluation.measurement import Measurement
    from align.settings.config import WandbConfig

_log = logging.getLogger(__name__)
_PREFERRED = {"right_pairs": 1.0, "tied_pairs": 0.5, "wrong_pairs": 0.0}
"""Metrics of an evaluation: numbers of held-out pairs with each outcome of ``Measurement.preferred``."""


class Tracker:
    """Writes metrics and samples on rank 0; on other ranks it does nothing."""

    def __init__(
        self, folder: Path, *, enabled: bool, wandb: WandbConfig | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.metrics = folder / "metrics.jsonl"
        self.samples = folder / "samples.jsonl"
        self.warnings = folder / "warnings.jsonl"
        self.enabled = enabled
        self._wandb: Any = None
        if enabled and wandb is not None and wandb.mode != "disabled":
            self._wandb = _start_wandb(folder, wandb, config or {})

    def truncate(self, step: int) -> None:
        """Drop what was logged after ``step``: the resumed run logs those steps again."""
        if self.enabled:
            for path in (self.metrics, self.samples, self.warnings):
                _rewrite(path, [record for record in read_records(path) if record["step"] <= step])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one record of metrics, made by :func:`by_phase`."""
        if not self.enabled:
            return
        _append(self.metrics, [{"step": step, **metrics}])
        self._to_wandb(lambda run: run.log(dict(metrics), step=step))

    def warn(self, step: int, name: str, sentence: str) -> None:
        """Append a warning to ``warnings.jsonl``; W&B sends it as an alert."""
        if not self.enabled:
            return
        _append(self.warnings, [{"step": step, "name": name, "warning": sentence}])
        self._to_wandb(lambda run: run.alert(title=name, text=sentence))

    def log_evaluation(self, step: int, measurement: Measurement, *, shown: int) -> None:
        """Append every sample to ``samples.jsonl`` and the means to the metrics as ``evaluation/…``.

        W&B gets a table of ``shown`` samples.
        """
        if not self.enabled:
            return
        samples = [asdict(sample) for sample in measurement.samples]
        _append(self.samples, [{"step": step, **sample} for sample in samples])
        pairs = list(measurement.preferred)
        counts = {name: float(pairs.count(outcome)) for name, outcome in _PREFERRED.items()} if pairs else {}
        self.log(step, by_phase(evaluation={**measurement.metrics(), **counts}))

        def send(run: Any) -> None:
            import wandb

            from align.evaluation.measurement import showcase

            columns: Any = ["prompt", "response", *measurement.samples[0].scores]
            chosen = [measurement.samples[i] for i in showcase(measurement.samples, shown)]
            rows: Any = [[s.prompt, s.response, *s.scores.values()] for s in chosen]
            run.log({"samples": wandb.Table(columns=columns, data=rows)}, step=step)

        if samples:
            self._to_wandb(send)

    def read_evaluation(self, step: int) -> Measurement | None:
        """Read back what :meth:`log_evaluation` wrote for this step; None where it did not finish."""
        found = self.read_evaluations().get(step)
        if found is None:
            _rewrite(self.samples, [record for record in read_records(self.samples) if record["step"] != step])
        return found

    def read_evaluations(self) -> dict[int, Measurement]:
        """Return the finished evaluations by step, oldest first."""
        from align.evaluation.measurement import Measurement, Sample

        samples: dict[int, list[Sample]] = {}
        for record in read_records(self.samples):
            samples.setdefault(record.pop("step"), []).append(Sample(**record))
        records = [(record["step"], of_phase(record, "evaluation")) for record in read_records(self.metrics)]
        return {
            step: Measurement(
                samples.get(step, []),
                [outcome for name, outcome in _PREFERRED.items() for _ in range(int(found.get(name, 0)))],
            )
            for step, found in records
            if found
        }

    def read_warnings(self) -> set[str]:
        """Return the names of the warnings in the log."""
        return {record["name"] for record in read_records(self.warnings)}

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


def log_table(
    folder: Path, settings: WandbConfig, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Log a table as a W&B run of its own, named after the folder; nothing where W&B is disabled."""
    run = _start_wandb(folder, settings, {}) if settings.mode != "disabled" else None
    if run is None:
        return
    import wandb

    try:
        run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
        run.finish()
    except Exception as error:
        _log.warning("W&B did not take the table (%s); it is in %s.", error, folder)


def by_phase(**phases: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of all phases as one record, by names as ``train/loss``."""
    return {f"{phase}/{name}": value for phase, metrics in phases.items() for name, value in metrics.items()}


def of_phase(record: Mapping[str, Any], phase: str) -> dict[str, Any]:
    """Return the metrics that a record of ``metrics.jsonl`` has of a phase, by the names without it."""
    return {name.removeprefix(f"{phase}/"): value for name, value in record.items() if name.startswith(f"{phase}/")}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL file, none if it does not exist; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # texts may hold other line separators
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
    return records


def _append(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(records))


def _rewrite(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    if path.exists():
        write_text(path, _lines(records))


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(_as_json(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def _as_json(value: Any) -> Any:
    """Return the value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


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
