"""One run as its parts see it: what is asked when, what is said, and with which code it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import ScorerError
from align.evaluation.measurement import Measurement, Sample
from align.model.batch import Batch
from align.runs.tracker import Tracker, read_records
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from align.training.feed import Feed
from align.training.step import TrainingError
from methods import DPO, SFT
from reward import RewardModel

Rows = list[dict[str, str]]


class Noting(SFT):
    """Notes when it is begun, and the seed of its first step."""

    calls: ClassVar[list[Any]] = []

    def begin(self, policy: Policy) -> None:
        self.calls.append(("begin", policy.name != ""))

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        del policy
        self.calls.append(("seed", torch.initial_seed()))
        return batch


class Measuring:
    """An evaluator whose score is the number of its measurements; fails at one of them."""

    notes = ("two prompts are too long",)

    def __init__(self, fails_at: int = -1) -> None:
        self.calls, self.fails_at = 0, fails_at

    def identity(self) -> str:
        return "mine"

    def measure(self, policy: Any, processes: Any, *, engine: Any, between: Any) -> Measurement:
        del policy, processes, engine, between
        self.calls += 1
        if self.calls == self.fails_at:
            raise ScorerError("the judge does not answer; start it.")
        return Measurement([Sample("p", "r", 2, 0.0, {"calls": float(self.calls)})])


def fit(
    model: Path,
    rows: Rows,
    folder: Path,
    method: Any = None,
    evaluator: Any = None,
    *,
    if_exists: Any = "new",
    **given: Any,
) -> Any:
    adapter = given.pop("adapter", Adapter(r=2))
    config = TrainerConfig(
        **{"steps": 4, "batch_size": 2, "max_length": 200, "save_steps": None, "samples": 0, **given}
    )
    trainer = Trainer(Policy.load(str(model), adapter=adapter), folder, config, if_exists=if_exists)
    return trainer.fit(method or SFT(), Preferences.from_rows(rows[:6]), evaluator=evaluator)


def test_what_a_run_returns_and_writes(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """Three steps are a pass over six examples in twos; measured before, at step 2 and, once, after the last."""
    evaluator = Measuring()
    result = fit(
        tiny_model,
        pair_rows,
        tmp_path / "run",
        DPO(beta=0.25),
        evaluator,
        eval_steps=2,
        save_steps=1,
        keep_checkpoints=3,
    )
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    steps = [record for record in records if "train/loss" in record]
    assert [record["train/epoch"] for record in steps] == pytest.approx([1 / 3, 2 / 3, 1.0, 4 / 3])
    for record in steps:
        assert record["train/tokens_per_second"] == pytest.approx(record["train/tokens"] / record["train/seconds"])
    assert [(r["step"], r["evaluation/calls"]) for r in records if "evaluation/calls" in r] == [(0, 1), (2, 2), (4, 3)]
    assert (result.folder, result.steps) == (tmp_path / "run", 4)
    assert {name: result.metrics[name] for name in steps[-1] if name != "step"} == {
        name: value for name, value in steps[-1].items() if name != "step"
    }
    assert result.evaluation["metrics"]["calls"] == {"before": 1.0, "after": 3.0}
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == ["step-00000002", "step-00000003", "step-00000004"]
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["method"]["name"], written["method"]["beta"]) == ("DPO", 0.25)
    assert (written["trainer"]["eval_steps"], written["trainer"]["learning_rate"]) == (2, None)
    assert written["resolved"] == {
        **{"learning_rate": 1e-4, "schedule": "cosine", "warmup": 0.1, "batch_size": 2, "turns_per_epoch": 3},
        **{"steps_per_epoch": 3, "steps": 4, "minibatches": 1, "trains": ["policy"], "generates": True, "tie": "beta"},
    }


class Judged(Measuring):
    """Scores of the start model and of those at steps 1 to 4."""

    SCORES: ClassVar = (9.0, 1.0, 3.0, 2.0, 3.0)

    def measure(self, policy: Any, processes: Any, *, engine: Any, between: Any) -> Measurement:
        super().measure(policy, processes, engine=engine, between=between)
        return Measurement([Sample("p", "r", 2, 0.0, {"judge": self.SCORES[self.calls - 1]})])


def test_the_best_model_is_chosen_by_its_answers_where_the_loss_says_otherwise(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    """The held-out loss falls to the last step; the answers of step 2 are the first of the best."""
    data = Preferences.from_rows(pair_rows[:6])
    config = TrainerConfig(
        steps=4, batch_size=6, max_length=200, save_steps=None, samples=0, eval_steps=1, learning_rate=1e-2
    )
    trainer = Trainer(Policy.load(str(tiny_model), adapter=Adapter(r=2)), tmp_path / "run", config)
    trainer.fit(SFT(), data, data, evaluator=Judged())  # pyright: ignore[reportArgumentType]
    losses = [r["heldout/loss"] for r in read_records(tmp_path / "run" / "metrics.jsonl") if "heldout/loss" in r]
    assert len(losses) == 5  # the start model's too
    assert losses == sorted(losses, reverse=True)
    merit = json.loads((tmp_path / "run" / "best" / "merit.json").read_text())
    assert merit == {"step": 2, "merit": 3.0}


def test_residual_dropout_is_the_same_in_a_run_that_was_resumed(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"residual_dropout": 0.5, "eval_steps": 1, "learning_rate": 1e-2, "steps": 2}
    fit(tiny_model, pair_rows, tmp_path / "whole", evaluator=Measuring(), **settings)
    with pytest.raises(TrainingError, match=r"Step 1 is saved\."):
        fit(tiny_model, pair_rows, tmp_path / "cut", evaluator=Measuring(fails_at=2), **settings)
    fit(tiny_model, pair_rows, tmp_path / "cut", evaluator=Measuring(), if_exists="resume", **settings)
    whole, cut = (load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_the_last_step_is_saved_whatever_save_steps_is(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    fit(tiny_model, pair_rows, tmp_path / "run", steps=3, save_steps=2, keep_checkpoints=9)
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == ["step-00000002", "step-00000003"]


def test_a_method_is_begun_once_and_the_seed_is_that_of_the_run(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noting, "calls", [])
    with pytest.raises(TrainingError):
        fit(tiny_model, pair_rows, tmp_path / "run", Noting(), Measuring(fails_at=2), seed=7, steps=2)
    assert Noting.calls[:2] == [("begin", True), ("seed", 7)]
    Noting.calls.clear()
    fit(tiny_model, pair_rows, tmp_path / "run", Noting(), Measuring(), seed=7, steps=2, if_exists="resume")
    assert Noting.calls == []  # both steps were done


def test_a_judge_that_fails_after_the_last_step_leaves_a_run_to_continue(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    """At the start nothing is saved; between steps and after the last one the step is."""
    for fails_at, words in ((1, r"start it\. Continue"), (2, r"Step 2 is saved\."), (3, r"Step 4 is saved\.")):
        with pytest.raises(TrainingError, match=rf"the judge does not answer; start it\..*{words}|{words}"):
            fit(tiny_model, pair_rows, tmp_path / str(fails_at), SFT(), Measuring(fails_at), eval_steps=2)
        saved = [path.name for path in (tmp_path / str(fails_at)).glob("checkpoints/*")]
        assert saved == ([] if fails_at == 1 else [f"step-0000000{2 * fails_at - 2}"])


def test_answers_are_evaluated_only_of_a_policy_that_gives_some(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    evaluator = Measuring()
    fit(tiny_model, pair_rows, tmp_path / "run", RewardModel(), evaluator, steps=1)
    assert evaluator.calls == 0


def test_a_step_without_a_batch_counts_and_leaves_the_metrics_of_the_one_before(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Feed.batch
    monkeypatch.setattr(Feed, "batch", lambda self, step: None if step % 2 == 0 else original(self, step))
    rate: dict[str, Any] = {"learning_rate": 0.5, "schedule": "linear", "warmup": 0}
    result = fit(tiny_model, pair_rows, tmp_path / "run", **rate)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [(record["step"], record["train/learning_rate"]) for record in records] == [(1, 0.5), (3, 0.25)]
    assert result.metrics["train/loss"] == records[1]["train/loss"]


@pytest.mark.parametrize(
    ("raised", "code"),
    [(None, 0), (Interrupted(signal.SIGINT, None), 130), (Interrupted(signal.SIGTERM, None), 143), (KeyError("x"), 1)],
)
def test_the_log_is_closed_with_the_code_of_the_run(
    raised: Exception | None,
    code: int,
    tiny_model: Path,
    pair_rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    original = Feed.batch

    def batch(self: Feed, step: int) -> Batch:
        if raised is not None:
            raise raised
        return original(self, step)

    monkeypatch.setattr(Tracker, "close", lambda _, exit_code: codes.append(exit_code))
    monkeypatch.setattr(Feed, "batch", batch)
    if raised is None:
        fit(tiny_model, pair_rows, tmp_path / "run", steps=1)
    else:
        with pytest.raises((Interrupted, TrainingError)):
            fit(tiny_model, pair_rows, tmp_path / "run", steps=1)
    assert codes == [code]


def test_a_signal_while_columns_are_cached_stops_at_once(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cache(_: Feed, between: Any) -> None:
        between()
        signal.raise_signal(signal.SIGTERM)
        between()
        raise AssertionError("it went on")

    monkeypatch.setattr(Feed, "cache_columns", cache)
    with pytest.raises(Interrupted) as caught:
        fit(tiny_model, pair_rows, tmp_path / "run")
    assert (caught.value.signum, caught.value.checkpoint) == (signal.SIGTERM, None)


@pytest.mark.parametrize("wanted", [False, True])
def test_activations_of_the_trained_roles_are_recomputed_if_asked(
    wanted: bool, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Policy, "recompute_activations", lambda _, roles: asked.append(roles))
    fit(tiny_model, pair_rows, tmp_path / "run", RewardModel(), steps=1, gradient_checkpointing=wanted)
    assert asked == [("reward",)] * wanted


@pytest.mark.parametrize(("method", "dropout", "said"), [(DPO(), 0.1, True), (DPO(), 0.0, False), (SFT(), 0.1, False)])
def test_what_is_said_before_the_first_step(
    method: Any,
    dropout: float,
    said: bool,
    tiny_model: Path,
    pair_rows: Rows,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(tiny_model, pair_rows, tmp_path / "run", method, Measuring(), steps=1, adapter=Adapter(r=2, dropout=dropout))
    out = capsys.readouterr().out
    assert ("the adapters' dropout is off: DPO compares the policy's passes" in out) is said
    assert "two prompts are too long" in out
    assert "layout: tree" in out
    plain = " ".join(out.split())
    rate = f"{method.optimization.learning_rate:g}"
    assert f"{type(method).__name__}: 6 examples, 1 steps of 2, learning rate {rate}; training 1,856 of" in plain
    assert "Resuming" not in out
