"""The monitor logs, measures, keeps the best and warns; policy, method and evaluator are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from align.evaluation.measurement import Beside, Measurement, Sample
from align.runs.tracker import Tracker, by_phase, read_records
from align.settings.config import TrainerConfig
from align.system.processes import Processes
from align.training import monitor as module
from align.training.monitor import Monitor


def measured(*scores: float, preferred: tuple[float, ...] = ()) -> Measurement:
    return Measurement([Sample("p", "r s", 2, 0.5, {"true": score}) for score in scores], list(preferred))


class Evaluator:
    """Gives the measurements one after the other, and looks at signals."""

    def __init__(self, *found: Measurement, prompts: int = 2) -> None:
        self.left = list(found)
        self.prompts = prompts

    def identity(self) -> dict[str, Any]:
        return {"prompts": self.prompts}

    def measure(self, policy: Any, processes: Any, *, engine: Any, between: Any) -> Measurement:
        del policy, processes, engine
        between()
        return self.left.pop(0)


class Heldout:
    """Held-out data of one rank in three batches, of which each metric is a sum and a weight."""

    data = "held out"

    def __init__(self, *batches: tuple[float, float]) -> None:
        self.batches = batches

    def steps(self, size: int) -> Iterator[tuple[float, float]]:
        assert size == 12
        yield from self.batches


def make(folder: Path, processes: Any = None, **given: Any) -> Monitor:
    """A monitor of a method with these ``hooks``."""
    processes = processes or Processes()
    hooks = {"headline": "acc", "report": lambda *_: {}, "merit": lambda _: None}
    hooks |= given.pop("hooks", {})
    stepper: Any = SimpleNamespace(
        policy=SimpleNamespace(device="cpu", name="start"),
        method=SimpleNamespace(**hooks),
        processes=processes,
        measure=lambda batch: {"loss": batch},
    )
    processes.autocast = lambda _: nullcontext()
    plan = SimpleNamespace(steps=given.pop("steps", 10), batch_size=12)
    parts: dict[str, Any] = {"settings": {}, "plan": plan, "evaluator": None, "heldout": None} | given
    parts = {"between": lambda: None} | parts
    config = TrainerConfig(**parts.pop("config", {}))
    tracker = Tracker(folder, enabled=processes.is_first)
    return Monitor(stepper, tracker, Console(quiet=True), config, folder=folder, **parts)


class TestLog:
    def test_steps_roll_outs_and_the_last_step(self, tmp_path: Path) -> None:
        monitor = make(tmp_path, steps=8, config={"log_steps": 3})
        for step in range(1, 9):
            rollout = {"objective/kl": 0.5} if step == 4 else {}
            record = by_phase(train={"loss": float(step)}, rollout=rollout)
            assert monitor.log(step, {"loss": float(step)}, rollout=rollout) == record
        assert read_records(tmp_path / "metrics.jsonl") == [
            {"step": 3, "train/loss": 3.0},
            {"step": 4, "train/loss": 4.0, "rollout/objective/kl": 0.5},
            {"step": 6, "train/loss": 6.0},
            {"step": 8, "train/loss": 8.0},
        ]

    def test_the_progress_bar_has_the_latest_of_each(self, tmp_path: Path) -> None:
        """The headline of an on-line method is there only at a roll-out, and stays."""
        monitor = make(tmp_path)
        assert monitor.headline == {}
        monitor.log(1, {"loss": 0.51234, "tokens_per_second": 1234.5, "other": 1.0}, rollout={"acc": 0.25})
        monitor.log(2, {"loss": 0.25, "tokens_per_second": 99.0}, rollout={})
        assert monitor.headline == {"loss": "0.25", "acc": "0.25", "tok/s": "99"}

    def test_each_thing_is_warned_of_once(self, tmp_path: Path) -> None:
        """After the roll-out that shows it; every roll-out counts, logged at its own step or not."""
        monitor = make(tmp_path, steps=100, settings={"method": {"beta": 0.1}}, config={"log_steps": 7})
        for step, kl in ((1, 30.0), (2, None), (3, 30.0)):
            monitor.log(step, {"loss": step / 2}, rollout={} if kl is None else {"objective/kl": kl})
        (warning,) = read_records(tmp_path / "warnings.jsonl")
        assert (warning["step"], warning["name"]) == (1, "kl")
        assert warning["warning"].startswith("the policy is 30.0 nats per rolled-out response away from its reference")
        assert monitor.course.values("rollout/objective/kl") == [30.0, 30.0]

    def test_a_run_that_draws_nothing_is_looked_at_twenty_times(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[int] = []
        monkeypatch.setattr(module, "examine", lambda course: looked.append(course.step) or [])
        monitor = make(tmp_path, steps=100)
        for step in range(1, 101):
            monitor.log(step, {"loss": 1.0}, rollout={})
        assert looked == list(range(5, 101, 5))


class TestEvaluate:
    def test_metrics_are_those_of_all_held_out_examples_of_all_ranks(self, tmp_path: Path, at_ranks: Any) -> None:
        """(1 + 2 + 3 + 10) / (1 + 1 + 2 + 4); signals are looked at before each batch."""
        looked: list[int] = []

        def run(processes: Processes) -> None:
            parts = ((1.0, 1.0), (2.0, 1.0), (3.0, 2.0)) if processes.is_first else ((10.0, 4.0),)
            between = (lambda: looked.append(1)) if processes.is_first else lambda: None
            monitor = make(tmp_path, processes, heldout=Heldout(*parts), between=between)
            assert monitor.evaluate(7) is None

        at_ranks(2, run)
        assert read_records(tmp_path / "metrics.jsonl") == [{"step": 7, "heldout/loss": 2.0}]
        assert looked == [1, 1, 1]

    def test_where_it_is_measured_on_the_way_the_start_model_is_too(self, tmp_path: Path) -> None:
        """(1 + 2) / (1 + 2), once: a run that is resumed has it in its log, one killed before it measures it."""
        given: dict[str, Any] = {"heldout": Heldout((1.0, 1.0), (2.0, 2.0))}
        make(tmp_path, **given).start(resumed=False)
        assert read_records(tmp_path / "metrics.jsonl") == []
        for resumed in (True, True):
            make(tmp_path, config={"eval_steps": 2}, **given).start(resumed=resumed)
            assert read_records(tmp_path / "metrics.jsonl") == [{"step": 0, "heldout/loss": 1.0}]

    def test_answers_are_measured_logged_and_remembered(self, tmp_path: Path) -> None:
        looked: list[int] = []
        first, second = measured(1.0, 2.0), measured(2.0, 4.0)
        monitor = make(tmp_path, evaluator=Evaluator(first, second), between=lambda: looked.append(1))
        assert monitor.start(resumed=False) is first
        assert monitor.evaluate(3) is second
        assert monitor.course.evaluations == {0: first, 3: second}
        assert looked == [1, 1]
        records = read_records(tmp_path / "metrics.jsonl")
        assert [(record["step"], record["evaluation/true"]) for record in records] == [(0, 1.5), (3, 3.0)]
        assert [sample["step"] for sample in read_records(tmp_path / "samples.jsonl")] == [0, 0, 3, 3]

    def test_a_resumed_run_does_not_measure_the_start_again(self, tmp_path: Path) -> None:
        first = measured(1.0, 2.0, preferred=(1.0, 0.5))
        make(tmp_path, evaluator=Evaluator(first)).start(resumed=False)
        resumed = make(tmp_path, evaluator=Evaluator())
        assert resumed.start(resumed=True) == first
        assert resumed.course.evaluations == {0: first}
        assert make(tmp_path).start(resumed=True) is None  # without an evaluator there is nothing to compare
        other = make(tmp_path / "other", evaluator=Evaluator(first))
        (tmp_path / "other").mkdir()
        assert other.start(resumed=True) is first  # killed before it had measured

    def test_a_resumed_run_that_is_evaluated_otherwise_measures_the_start_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Once: what is measured after it has the same prompts; steps of training stay."""
        first, other = measured(1.0, 2.0, preferred=(1.0, 0.5)), measured(5.0)
        whole = make(tmp_path, evaluator=Evaluator(first, measured(2.0, 3.0)))
        whole.start(resumed=False)
        whole.log(1, {"loss": 1.0}, rollout={})
        whole.evaluate(2)
        resumed = make(tmp_path, evaluator=Evaluator(other, prompts=1))
        resumed.console = Console()
        assert resumed.start(resumed=True) is other
        said = capsys.readouterr().out
        assert "evaluated otherwise before: evaluation.prompts is 2 in the run and 1 now." in said
        records = read_records(tmp_path / "metrics.jsonl")
        assert [(record["step"], record.get("evaluation/true")) for record in records] == [(1, None), (0, 5.0)]
        assert [sample["step"] for sample in read_records(tmp_path / "samples.jsonl")] == [0]
        assert read_records(tmp_path / "ordered_pairs.jsonl") == []
        assert make(tmp_path, evaluator=Evaluator(prompts=1)).start(resumed=True) == other

    def test_a_resumed_run_goes_on_from_the_whole_log(self, tmp_path: Path) -> None:
        """Evaluations, roll-outs and warnings as they were, none twice."""
        whole = make(tmp_path, evaluator=Evaluator(measured(1.0), measured(2.0)))
        whole.start(resumed=False)
        whole.log(1, {"loss": 1.0}, rollout={"objective/kl": 30.0})
        whole.log(2, {"loss": 2.0}, rollout={})
        whole.evaluate(2)
        resumed = make(tmp_path, evaluator=Evaluator())
        resumed.start(resumed=True)
        resumed.resume()
        assert resumed.course.evaluations == whole.course.evaluations
        assert (resumed.course.values("train/loss"), resumed.course.step) == ([1.0, 2.0], 2)
        resumed.log(3, {"loss": 1.0}, rollout={"objective/kl": 30.0})
        assert resumed.course.values("rollout/objective/kl") == [30.0, 30.0]
        assert len(read_records(tmp_path / "warnings.jsonl")) == 1


class TestBest:
    def kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch, processes: Any = None, **given: Any) -> list[Any]:
        """The merits written over ``best/`` in four evaluations of merit 1, 1, 3 and 2."""
        written: list[Any] = []

        def replace(policy: Any, place: Path, merit: Mapping[str, Any]) -> None:
            assert policy.name == "start"
            written.append(dict(merit))
            place.mkdir(exist_ok=True)
            (place / "merit.json").write_text(json.dumps(merit))

        monkeypatch.setattr(module, "replace_policy", replace)
        hooks = {"merit": lambda found: found.metrics()["true"]} | given.pop("hooks", {})
        config = {"config": {"eval_steps": 1}} | given
        monitor = make(
            folder, processes, hooks=hooks, evaluator=Evaluator(*map(measured, (1.0, 1.0, 3.0, 2.0))), **config
        )
        for step in (1, 2, 3, 4):
            monitor.evaluate(step)
        return written

    def test_a_better_one_takes_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of equal ones the first stays."""
        assert self.kept(tmp_path, monkeypatch) == [{"step": 1, "merit": 1.0}, {"step": 3, "merit": 3.0}]
        assert (tmp_path / "best" / "merit.json").exists()

    def test_a_resumed_run_compares_with_the_one_that_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "best").mkdir()
        (tmp_path / "best" / "merit.json").write_text('{"step": 1, "merit": 2.5}')
        assert self.kept(tmp_path, monkeypatch) == [{"step": 3, "merit": 3.0}]

    def test_only_where_evaluations_choose(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.kept(tmp_path, monkeypatch, config={}) == []
        assert self.kept(tmp_path, monkeypatch, hooks={"merit": lambda _: None}) == []
        other = Processes()
        other.rank = 1
        assert self.kept(tmp_path, monkeypatch, other) == []


class TestConclude:
    def conclude(self, folder: Path, processes: Any = None, **given: Any) -> dict[str, Any]:
        before, after = given.pop("before", measured(1.0, 2.0)), given.pop("after", measured(2.0, 2.0))
        return make(folder, processes, **given).conclude(
            "train", before, after, [Beside("other", "another model", measured(5.0, 1.0))]
        )  # pyright: ignore

    def test_the_model_after_is_compared_with_that_before_and_others(self, tmp_path: Path) -> None:
        """After has 2, 2 against 1, 2 of the start (a win and a tie) and 5, 1 of another (a loss and a win)."""
        asked: list[Any] = []

        def report(*words: Any) -> dict[str, Any]:
            asked.append(words)
            return {"metrics": {"own": {"before": None, "after": 4.0}}, "intervals": {}, "further": 1}

        evaluation = self.conclude(tmp_path, hooks={"report": report}, heldout=Heldout())
        ((policy, train, heldout, folder),) = asked
        assert (policy.name, train, heldout, folder) == ("start", "train", "held out", tmp_path)
        assert evaluation["win_rate"]["mean"] == 0.75
        assert (evaluation["win_rate"]["over"], evaluation["win_rate"]["by"]) == ("start", "true")
        (beside,) = evaluation["win_rates_beside"]
        assert (beside["over"], beside["role"], beside["mean"]) == ("other", "another model", 0.5)
        assert evaluation["metrics"]["true"] == {"before": 1.5, "after": 2.0}
        assert evaluation["metrics"]["own"] == {"before": None, "after": 4.0}
        assert evaluation["further"] == 1
        assert set(evaluation["intervals"]) >= {"true", "kl"}
        assert json.loads((tmp_path / "evaluation.json").read_text()) == evaluation

    def test_the_win_rate_beside_is_that_of_the_model_after(self, tmp_path: Path) -> None:
        evaluation = self.conclude(tmp_path, after=measured(9.0, 9.0))
        assert evaluation["win_rates_beside"][0]["mean"] == 1.0

    def test_without_a_scorer_no_one_wins(self, tmp_path: Path) -> None:
        plain = Measurement([Sample("p", "r", 2, 0.5, {})])
        evaluation = self.conclude(tmp_path, before=plain, after=plain)
        assert "win_rate" not in evaluation
        assert "win_rates_beside" not in evaluation
        assert evaluation["metrics"]["kl"] == {"before": 0.5, "after": 0.5}

    def test_a_run_without_anything_to_say_writes_no_evaluation(self, tmp_path: Path) -> None:
        assert self.conclude(tmp_path, before=None, after=None) == {}
        assert not (tmp_path / "evaluation.json").exists()
        report = {"metrics": {"own": {"before": 3.0, "after": 4.0}}}
        assert self.conclude(tmp_path, before=None, after=None, hooks={"report": lambda *_: report}) == report
        assert json.loads((tmp_path / "evaluation.json").read_text()) == report

    def test_files_and_pictures_are_the_first_rank_s(self, tmp_path: Path) -> None:
        asked: list[Any] = []
        other = Processes()
        other.rank = 1
        evaluation = self.conclude(
            tmp_path, other, hooks={"report": lambda *words: asked.append(words[2:]) or {"own": 1}}
        )
        assert evaluation["own"] == 1
        assert asked == [(None, None)]
        assert not list(tmp_path.iterdir())
