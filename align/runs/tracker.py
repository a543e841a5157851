"""Metrics and samples of a run: ``metrics.jsonl`` and ``samples.jsonl`` always, trackers when asked for.

If a tracker fails, training goes on without it and the local log stays complete.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.errors import UserError, first_line
from align.evaluation.measurement import Measurement, Sample
from align.runs.lineage import TRACKER_IDS, Artifact, candidates, trained
from align.runs.services import TITLES, Service, Table, run_ids
from align.runs.summaries import before_after_table, results, samples_table
from align.settings.config import TrackerName, WandbConfig
from align.system.files import new_file, read_json, write_json
from align.system.redaction import redact, redact_strings, redact_text

_log = logging.getLogger(__name__)
FAILED = "failed"
"""Name of the warning that a run leaves which an error ends; it is taken back when the run goes on."""


class Tracker:
    """Writes metrics and samples on rank 0; on other ranks it does nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        enabled: bool,
        trackers: Sequence[TrackerName] = (),
        wandb: WandbConfig | None = None,
        config: Mapping[str, Any] | None = None,
        uses: Sequence[Artifact] = (),
    ) -> None:
        """
        Args:
            folder: Of the run.
            enabled: On rank 0.
            trackers: Told of everything too.
            wandb: Settings of W&B; project and group are those of other trackers as well.
            config: Settings of the run, which trackers show.
            uses: What the run learns and begins from.
        """
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.samples = folder / "samples.jsonl"
        self.ordered = folder / "ordered_pairs.jsonl"
        self.warnings = folder / "warnings.jsonl"
        self.enabled = enabled
        self._services: dict[TrackerName, Service] = {}
        for name in trackers if enabled else ():
            try:
                self._services[name] = _start(name, folder, wandb or WandbConfig(), redact(config or {}))
            except Exception as error:
                _log.warning("%s could not be reached (%s); metrics.jsonl goes on alone.", TITLES[name], error)
        for artifact in uses:
            self.tell(lambda service, artifact=artifact: service.use(artifact), artifact)

    def truncate(self, step: int, *, evaluated: int = 0, shown: int = 0) -> None:
        """Drop what was logged after ``step``, and of evaluations after ``evaluated``: the resumed run logs it again.

        That an error ended the run is dropped too, and the file of warnings if none is left. Trackers are told once
        more what is left, with tables of ``shown`` samples, where they may have lost it.
        """
        if self.enabled:
            last = {self.metrics: step, self.samples: evaluated, self.ordered: evaluated, self.warnings: step}
            for path, until in last.items():
                kept = [record for record in read_records(path) if record["step"] <= until]
                records = [record for record in kept if record.get("name") != FAILED]
                _rewrite(path, [record for record in records if record["step"] <= evaluated or not _measured(record)])
            if self.warnings.exists() and not self.warnings.stat().st_size:
                self.warnings.unlink()
            if self._services:
                logged = self._logged(shown)
                self.tell(lambda service: service.resume(logged))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one record of metrics, made by :func:`by_phase`."""
        if not self.enabled:
            return
        _append(self.metrics, [{"step": step, **metrics}])
        self.tell(lambda service: service.log(step, metrics))

    def warn(self, step: int, name: str, sentence: str) -> None:
        """Append a warning to ``warnings.jsonl``; see `alert`."""
        if not self.enabled:
            return
        _append(self.warnings, [{"step": step, "name": name, "warning": sentence}])
        self.alert(name, sentence)

    def alert(self, title: str, sentence: str) -> None:
        """Let W&B send an alert."""
        self.tell(lambda service: service.warn(title, redact_text(sentence)))

    def log_evaluation(self, step: int, measurement: Measurement, *, shown: int) -> None:
        """Append every sample to ``samples.jsonl``, how each pair is ordered, and last the means to the metrics.

        Trackers get a table of ``shown`` samples.
        """
        if not self.enabled:
            return
        samples = [asdict(sample) for sample in measurement.samples]
        _append(self.samples, [{"step": step, **sample} for sample in samples])
        if measurement.preferred:
            numbers = {name: number for number, name in enumerate(dict.fromkeys(measurement.pair_prompts))}
            prompts = [numbers[name] for name in measurement.pair_prompts]
            _append(self.ordered, [{"step": step, "preferred": list(measurement.preferred), "prompts": prompts}])
        self.log(step, by_phase(evaluation=measurement.metrics()))
        if samples and shown:
            table = samples_table(measurement, shown)
            self.tell(lambda service: service.table(step, table))

    def log_results(
        self,
        step: int,
        evaluation: Mapping[str, Any],
        measured: Sequence[Measurement],
        *,
        shown: int,
    ) -> None:
        """Tell trackers how the run ended; ``evaluation.json`` has it already.

        Args:
            step: The last one.
            evaluation: Content of ``evaluation.json``.
            measured: All evaluations, the first one of the start model.
            shown: Samples in the table of answers before and after.
        """
        if not self._services:
            return
        values = by_phase(result=results(evaluation, measured))
        if values:
            self.tell(lambda service: service.results(step, values))
        if len(measured) > 1 and measured[0].samples and shown:
            table = before_after_table(measured[0].samples, measured[-1].samples, shown)
            self.tell(lambda service: service.table(step, table))

    def keep(self, final: Path) -> None:
        """Let W&B keep what was trained."""
        made = trained(final) if self._services else None
        if made is not None:
            self.tell(lambda service: service.keep(made), made)

    def read_evaluation(self, step: int) -> Measurement | None:
        """Read back what :meth:`log_evaluation` wrote for this step; None where it did not finish."""
        found = self.read_evaluations().get(step)
        if found is None:
            for path in (self.samples, self.ordered):
                _rewrite(path, [record for record in read_records(path) if record["step"] != step])
        return found

    def forget_evaluations(self) -> None:
        """Drop all that :meth:`log_evaluation` wrote."""
        for path in (self.samples, self.ordered):
            _rewrite(path, [])
        _rewrite(self.metrics, [record for record in read_records(self.metrics) if not of_phase(record, "evaluation")])

    def read_evaluations(self) -> dict[int, Measurement]:
        """Return the finished evaluations by step, oldest first."""
        samples: dict[int, list[Sample]] = {}
        for number, record in enumerate(read_records(self.samples)):
            try:
                samples.setdefault(record.pop("step"), []).append(Sample(**record))
            except TypeError as error:
                raise _damaged(self.samples, number, first_line(error)) from error
        ordered = {record["step"]: record for record in read_records(self.ordered)}
        done = [record["step"] for record in read_records(self.metrics) if of_phase(record, "evaluation")]
        found: dict[int, Measurement] = {}
        for step in done:
            pairs = ordered.get(step, {"preferred": [], "prompts": ()})
            found[step] = Measurement(samples.get(step, []), pairs["preferred"], tuple(pairs["prompts"]))
        return found

    def read_results(self) -> dict[str, float]:
        """Return the numbers that sum a finished run up, as :meth:`log_results` tells them to trackers."""
        evaluation = read_json(self.folder / "evaluation.json") or {}
        return by_phase(result=results(evaluation, list(self.read_evaluations().values())))

    def read_warnings(self) -> set[str]:
        """Return the names of the warnings in the log."""
        return {record["name"] for record in read_records(self.warnings)}

    def _logged(self, shown: int) -> list[tuple[int, Mapping[str, float] | Table]]:
        """All that trackers were told so far, in the order of the steps."""
        logged: list[tuple[int, Mapping[str, float] | Table]] = []
        for record in read_records(self.metrics):
            values = {name: math.nan if value is None else value for name, value in record.items() if name != "step"}
            logged.append((record["step"], values))
        measured = self.read_evaluations().items() if shown else ()
        tables = [(step, samples_table(found, shown)) for step, found in measured if found.samples]
        return sorted([*logged, *tables], key=lambda entry: entry[0])

    def close(self, exit_code: int = 0) -> None:
        """Finish the runs of all trackers."""
        self.tell(lambda service: service.finish(exit_code))
        self._services.clear()

    def tell(self, send: Callable[[Service], None], artifact: Artifact | None = None) -> None:
        """Tell every tracker; one that fails is left out from then on, unless it failed with an ``artifact``."""
        for name, service in list(self._services.items()):
            try:
                send(service)
            except Exception as error:
                if artifact is not None:
                    _log.warning("%s did not take %s (%s).", TITLES[name], artifact.name, error)
                    continue
                _log.warning("%s stopped accepting metrics (%s); metrics.jsonl goes on alone.", TITLES[name], error)
                del self._services[name]


def log_table(
    folder: Path, settings: WandbConfig, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Log a table as a W&B run of its own, named after the folder."""
    tracker = Tracker(folder, enabled=True, trackers=("wandb",), wandb=settings)
    tracker.tell(lambda service: service.table(0, Table(name, columns, rows)))
    tracker.close()


def log_candidates(
    folder: Path,
    settings: WandbConfig,
    config: Mapping[str, Any],
    *,
    file: Path,
    counts: Mapping[str, float],
    uses: Sequence[Artifact],
) -> None:
    """Log the drawing of candidates as a W&B run of its own: its counts, and the state of the file as an artifact."""
    tracker = Tracker(folder, enabled=True, trackers=("wandb",), wandb=settings, config=config, uses=uses)
    made = candidates(file)
    tracker.tell(lambda service: service.results(0, by_phase(candidates=counts)))
    if made is not None:
        tracker.tell(lambda service: service.keep(made), made)
    tracker.close()


def by_phase(**phases: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of all phases as one record, by names as ``train/loss``."""
    return {f"{phase}/{name}": value for phase, metrics in phases.items() for name, value in metrics.items()}


def of_phase(record: Mapping[str, Any], phase: str) -> dict[str, Any]:
    """Return the metrics that a record of ``metrics.jsonl`` has of a phase, by the names without it."""
    return {name.removeprefix(f"{phase}/"): value for name, value in record.items() if name.startswith(f"{phase}/")}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, none if it does not exist; a last line cut off by a kill is left out.

    Raises:
        UserError: Another line is damaged: no JSON, or no record of a step.
    """
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")  # texts may hold other line separators
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError as error:  # no JSON, or cut inside a character
            if number == len(lines) - 1:
                break
            raise _damaged(path, number, first_line(error)) from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):  # pyright: ignore[reportUnknownMemberType]
            raise _damaged(path, number, "no record of a step")
        records.append(record)  # pyright: ignore[reportUnknownArgumentType]
    return records


def _damaged(path: Path, number: int, problem: str) -> UserError:
    return UserError(f"{path}: line {number + 1} is damaged ({problem}); bring it back from a copy, or take it out.")


def _measured(record: Mapping[str, Any]) -> bool:
    """Return whether a record of ``metrics.jsonl`` is of an evaluation, not of a step."""
    return any(name.startswith(("heldout/", "evaluation/")) for name in record)


def _append(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(records))


def _rewrite(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    if path.exists():
        with new_file(path) as file:  # a metric may have the name of a secret
            file.write_text(_lines(records), encoding="utf-8")


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(
        json.dumps(redact_strings(_as_json(record)), ensure_ascii=False, allow_nan=False) + "\n" for record in records
    )


def _as_json(value: Any) -> Any:
    """Return the value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _start(name: TrackerName, folder: Path, wandb: WandbConfig, config: Mapping[str, Any]) -> Service:
    """Begin a run with a tracker, or go on with the one that the folder had."""
    known = run_ids(folder)
    service: Service
    if name == "wandb":
        from align.runs.wandb_run import WandbRun

        service = WandbRun(folder, wandb, config, run_id=known.get(name))
        called = service.id
    else:
        from align.runs import accelerated

        service, called = accelerated.begin(name, folder, wandb, config, known.get(name))
    write_json(folder / TRACKER_IDS, {**known, name: called})
    return service
