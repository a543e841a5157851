"""Runs the arms of an experiment: trainings and measurements as jobs, each done once, shared by all experiments.

``runs/experiments/data/`` (data sets) · ``runs/`` (ordinary runs) · ``jobs/`` (time and memory) · ``measured/``. A name
ends with a hash of all that it depends on, so that an arm with the same words is the same run in another experiment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from align.candidates.store import read_summary
from align.cli.compare.jobs import Job, Pool
from align.cli.compare.stages import final_weights
from align.cli.console import say
from align.cli.launch.recipe import CANDIDATES
from align.errors import UserError
from align.system.files import read_json
from align.system.identity import hashed
from align.system.workers import core_count
from experiments import data
from experiments.plan import PLACE, Arm, Experiment

__all__ = ["Runner"]

_SCRIPTS = Path(__file__).resolve().parents[1]
_WORDS = ("evaluation.prompts=0", "trainer.samples=0", "data.heldout_size=0", "trainer.save_steps=null")
"""Of every run: what it would measure of itself is measured here."""


@dataclass(frozen=True)
class _Run:
    """A training, or the start model."""

    name: str
    words: tuple[str, ...]


class Runner:
    """Does what an experiment needs and is not done yet."""

    def __init__(self, name: str, experiment: Experiment, folder: Path, *, workers: int = 0) -> None:
        self.name, self.experiment, self.folder = name, experiment, folder
        self.pool = Pool(folder / "jobs", workers or core_count(), say)
        self._runs: dict[tuple[str, int], _Run] = {}

    def run(self) -> dict[str, dict[int, Any]]:
        """Train and measure; returns for each arm and seed what was measured.

        Raises:
            KeyboardInterrupt: Stopped; the same command goes on.
            UserError: A run failed.
        """
        arms = self.experiment.all_arms
        for level in self._levels(arms):
            jobs = [self._training(name, seed) for name in level for seed in self.seeds(arms[name])]
            self._do(jobs)
        return self._measure({name: arm for name, arm in arms.items() if not arm.helper})

    def _do(self, jobs: Sequence[Job]) -> None:
        for name, record in self.pool.run(jobs).items():
            if record["code"]:
                raise UserError(f"{name} failed; see {self.pool.log(name)}.")

    def seeds(self, arm: Arm) -> list[int]:
        """Seeds of an arm."""
        first = self.experiment.first_seed
        return list(range(first, first + (arm.seeds or self.experiment.seeds)))

    def final(self, name: str, seed: int) -> Path:
        """The folder of what an arm trained: that of its last stage."""
        return final_weights(self.folder / "runs" / self._run(name, seed).name)

    def seconds(self, name: str, seed: int) -> float:
        """Time of an arm's training."""
        record = self.pool.record(self._run(name, seed).name)
        return record["seconds"] if record is not None else 0.0

    def paths(self, name: str, seed: int) -> float | None:
        """Distinct solutions per prompt, the demonstration's included, of the candidates that an arm learnt from.

        None where it learnt from none, or where solutions were not told apart.
        """
        drawn = re.search(r"\{run\.([\w-]+)\}/" + re.escape(CANDIDATES), " ".join(self._run(name, seed).words))
        if drawn is None:
            return None
        counts = read_summary(self.folder / "runs" / self._run(drawn[1], seed).name / CANDIDATES) or {}
        found = counts.get("paths_with_demonstration")
        return None if found is None else found / counts["prompts"]

    def _levels(self, arms: Mapping[str, Arm]) -> list[list[str]]:
        """Sort the arms into groups that need earlier groups alone."""
        needs = {
            name: {other for kind, other in PLACE.findall(" ".join(arm.words)) if kind != "data"}
            for name, arm in arms.items()
        }
        sorter = TopologicalSorter(needs)
        sorter.prepare()
        levels: list[list[str]] = []
        while sorter.is_active():
            ready = sorter.get_ready()
            sorter.done(*ready)
            levels.append([name for name in ready if arms[name].words])
        return levels

    def _run(self, name: str, seed: int) -> _Run:
        """The run of an arm, named by a hash of all that it depends on."""
        if (name, seed) not in self._runs:
            arm = self.experiment.all_arms[name]
            words = _last([*self.experiment.shared, *_WORDS, *arm.words, f"seed={seed + arm.offset}"])

            def identity(kind: str, other: str) -> str:
                return self._data(other, seed).name if kind == "data" else self._run(other, seed).name

            known = [PLACE.sub(lambda found: identity(found[1], found[2]), word) for word in words]
            self._runs[name, seed] = _Run(f"{name}-{_short(known)}-seed{seed}", words)
        return self._runs[name, seed]

    def _data(self, name: str, seed: int) -> Path:
        """The file of a data set, which is made where it is not there."""
        return self._made(name, self.experiment.data[name], seed)

    def _made(self, name: str, settings: Mapping[str, Any], seed: int) -> Path:
        file = self.folder / "data" / f"{name}-{_short(dict(settings))}-seed{seed}.jsonl"
        if not file.exists():
            data.make(settings, seed, file)
        return file

    def _filled(self, words: Sequence[str], seed: int) -> list[str]:
        def place(kind: str, name: str) -> str:
            if kind == "run":
                return str(self.folder / "runs" / self._run(name, seed).name)
            return str(self.final(name, seed) if kind == "final" else self._data(name, seed))

        return [PLACE.sub(lambda found: place(found[1], found[2]), word) for word in words]

    def _training(self, name: str, seed: int) -> Job:
        run = self._run(name, seed)
        runs = self.folder / "runs"
        where = [f"run_name={run.name}", f"output_root={runs}", "if_exists=resume"]
        words = ["-m", "align", *self._filled(run.words, seed), *where]
        return Job(run.name, words, f"{name}, seed {seed}", leaves=runs / run.name)

    def _measure(self, arms: Mapping[str, Arm]) -> dict[str, dict[int, Any]]:
        tasks = {(name, seed): self._task(name, arm, seed) for name, arm in arms.items() for seed in self.seeds(arm)}
        (self.folder / "measured").mkdir(exist_ok=True)
        left = [task for task in tasks.values() if not Path(task["out"]).exists()]
        command = [str(_SCRIPTS / "experiment.py"), "--measure"]
        self._do(self.pool.shared_out(f"measure-{self.name}", left, command))
        found: dict[str, dict[int, Any]] = {}
        for (name, seed), task in tasks.items():
            found.setdefault(name, {})[seed] = read_json(Path(task["out"]))
        return found

    def _task(self, name: str, arm: Arm, seed: int) -> dict[str, Any]:
        measures: dict[str, Any] = {}
        for key, measure in self.experiment.all_measures.items():
            if not measure.arms or name in measure.arms:
                settings = asdict(measure)
                prompts = self._made(key, settings.pop("prompts"), 0)
                del settings["arms"]
                measures[key] = {**settings, "file": str(prompts), "scorers": self._filled(measure.scorers, seed)}
        task = {
            "words": self._filled([*(self.experiment.shared or ("method=sft",)), f"seed={seed}"], seed),
            "weights": str(self.final(name, seed)) if arm.words else None,
            "shots": arm.shots,
            "examples": str(self._data("train", seed)) if arm.shots else None,
            "best_of": arm.best_of,
            "seed": seed,
            "measures": measures,
        }
        out = self.folder / "measured" / f"{name}-{_short(task)}-seed{seed}.json"
        return {**task, "title": f"{name}, seed {seed}", "out": str(out), "identity": hashed(task)}


def _last(words: Sequence[str]) -> tuple[str, ...]:
    """Of words with the same key keep the last."""
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _short(value: Any) -> str:
    return hashed(value)[-8:]
