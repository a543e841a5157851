"""The loop: the same weights however the work is cut, and what a run leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.training.feed import tokenize_for
from methods import BCO, DPO, KTO, SFT
from tests.align.training.conftest import final
from tests.align.training.dpo_runs import Rows, begin, largest_difference, train
from tests.forked import on_ranks

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize("method", [DPO(), SFT(), SFT(reduction="sequence_mean"), DPO(reference="cached")])
def test_the_micro_batch_budget_changes_nothing(method: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    # SGD: AdamW divides by the size of the gradient, which makes of the rounding of a vanishing one a whole step.
    settings: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 1e9, "save_steps": None}
    _, whole = train(tiny_model, pair_rows, tmp_path / "whole", method, tokens_per_microbatch=100_000, **settings)
    _, cut = train(tiny_model, pair_rows, tmp_path / "cut", method, tokens_per_microbatch=150, **settings)
    assert largest_difference(whole, cut) < 1e-5
    assert max(t.abs().max().item() for name, t in whole.items() if "lora_B" in name) > 1e-3  # it did learn


@pytest.mark.usefixtures("without_charts")
def test_cached_and_live_reference_train_alike(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    _, live = train(tiny_model, pair_rows, tmp_path / "live", DPO(reference="live"))
    for reference in ("cached", "auto"):
        _, cached = train(tiny_model, pair_rows, tmp_path / reference, DPO(reference=reference))
        assert largest_difference(live, cached) < 1e-5


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize("kind", [DPO, KTO, BCO])
def test_the_reference_is_asked_once_for_each_pair(
    kind: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run of three passes, which learns the same as if it were asked in each step."""
    asked = 0

    def of(policy: Policy, batch: Batch) -> Any:
        nonlocal asked
        asked += (
            batch.P if policy.role == "reference" and "better_PKK" in batch else 0
        )  # not in batches of the baseline
        return logprobs(policy, batch)

    logprobs = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", of)
    settings: dict[str, Any] = {"steps": None, "epochs": 3, "save_steps": None}
    _, once = train(tiny_model, pair_rows, tmp_path / "once", kind(), **settings)
    assert asked == len(pair_rows)
    monkeypatch.setattr(kind, "cached_columns", lambda *_, **__: ())
    _, each = train(tiny_model, pair_rows, tmp_path / "each", kind(), **settings)
    assert asked == 4 * len(pair_rows)
    assert largest_difference(once, each) < 1e-5


@pytest.mark.usefixtures("without_charts")
def test_gradient_checkpointing_changes_nothing(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for checkpointing in (False, True):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        config = TrainerConfig(
            steps=3, batch_size=8, learning_rate=1e-2, max_length=200, gradient_checkpointing=checkpointing
        )
        folder = (
            Trainer(policy, tmp_path / str(checkpointing), config).fit(DPO(), Preferences.from_rows(pair_rows)).folder
        )
        weights.append(load_file(folder / "final" / "adapter_model.safetensors"))
    assert largest_difference(*weights) < 1e-5


def test_a_run_leaves_what_it_promises(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    pairs = Preferences.from_rows(pair_rows)
    data, heldout = pairs.train_test_split(8, seed=0)
    evaluator = Evaluator.from_preferences(
        policy, heldout, heldout, max_length=200, sampling=SamplingParams(max_new_tokens=8)
    )
    config = TrainerConfig(steps=4, batch_size=8, max_length=200, eval_steps=2, save_steps=2)
    result = Trainer(policy, tmp_path / "run", config).fit(DPO(), data, heldout, evaluator)
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {
        "config.yaml",
        "command.txt",
        "environment.json",
        "metrics.jsonl",
        "samples.jsonl",
        "evaluation.json",
        "curves.png",
        "data.json",
        "cost.json",
        "report.html",
        "checkpoints",
        "final",
    }
    page = (result.folder / "report.html").read_text()
    assert all(f"<h2>{part}" in page for part in ("Evaluation", "Curves", "Answers before", "Data", "Examples", "Cost"))
    card = (result.folder / "final" / "README.md").read_text()
    assert f"fingerprint `{data.fingerprint}`" in card
    assert f"fingerprint `{heldout.fingerprint}`" in card
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "train/loss" in record] == [1, 2, 3, 4]
    assert [record["step"] for record in records if "heldout/loss" in record] == [0, 2, 4]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    evaluation = json.loads((result.folder / "evaluation.json").read_text())
    assert evaluation["metrics"]["kl"]["before"] == pytest.approx(0, abs=1e-5)
    assert evaluation["metrics"]["preference_accuracy"]["before"] == pytest.approx(0.5, abs=0.2)
    samples = [json.loads(line) for line in (result.folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 8 + [2] * 8 + [4] * 8
    assert samples[0].keys() >= {"prompt", "response", "tokens", "kl", "scores"}
    assert [record["step"] for record in records if "evaluation/kl" in record] == [0, 2, 4]


def test_the_last_step_is_logged_whatever_log_steps_is(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    folder, _ = train(tiny_model, pair_rows[:8], tmp_path / "run", SFT(), steps=3, log_steps=2, save_steps=None)
    assert [record["step"] for record in read_records(folder / "metrics.jsonl")] == [2, 3]


def test_dropout_follows_the_seed(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """A step of the whole data, so that their order is not what differs."""
    config: dict[str, Any] = {"steps": 1, "save_steps": None, "adapter": Adapter(r=4, dropout=0.5)}
    first, again, other = (
        train(tiny_model, pair_rows[:8], tmp_path / str(number), SFT(), seed=seed, **config)[1]
        for number, seed in enumerate((0, 0, 1))
    )
    assert largest_difference(first, again) == 0
    assert largest_difference(first, other) > 1e-4


def test_the_first_step_of_a_default_run_learns(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=20, max_length=200, save_steps=1, keep_checkpoints=20)
    folder = Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows)).folder
    first = load_file(folder / "checkpoints" / "step-00000001" / "policy" / "adapter_model.safetensors")
    names = {name.removeprefix("policy.").replace(".policy.", "."): name for name in before}
    changed = [not torch.equal(first[short], before[name]) for short, name in names.items() if "lora_B" in name]
    assert changed
    assert all(changed)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["train/learning_rate"] for record in records][:3] == [5e-5, 1e-4, 1e-4]  # two of 20 steps warm up
    assert records[0]["train/rewards/accuracies"] == 0.5  # every pair is tied before it


def test_tokenised_data_trains_as_its_rows_do(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    rows, heldout = Preferences.from_rows(pair_rows).train_test_split(8, seed=0)
    config = TrainerConfig(steps=2, batch_size=8, learning_rate=1e-2, max_length=200)
    finals: list[dict[str, torch.Tensor]] = []
    for name in ("rows", "tokens"):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        data: list[Any] = [rows, heldout]
        if name == "tokens":
            data = [tokenize_for(DPO(), each, policy.tokenizer, 200) for each in data]
        folder = Trainer(policy, tmp_path / name, config).fit(DPO(), *data).folder
        finals.append(load_file(folder / "final" / "adapter_model.safetensors"))
        assert "heldout/loss" in (folder / "metrics.jsonl").read_text()
    assert largest_difference(*finals) == 0
    with pytest.raises(UserError, match=r"SFT learns from a demonstration, but the data was tokenised as a pair"):
        Trainer(policy, tmp_path / "other", config).fit(SFT(), tokenize_for(DPO(), rows, policy.tokenizer, 200))


def test_a_second_run_of_the_same_name_gets_its_own_folder(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    first, _ = train(tiny_model, pair_rows, tmp_path / "run", steps=1)
    second, _ = train(tiny_model, pair_rows, tmp_path / "run", steps=1)
    assert (first.name, second.name) == ("run", "run-2")


def test_a_run_that_learns_nothing_changes_nothing(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=3, batch_size=8, learning_rate=1e-30, max_length=200)
    Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows))
    after = policy.roles.parameters("policy")
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-20) for name in before)


@pytest.mark.slow
def test_two_processes_give_the_parameters_of_one(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """Ten steps on uneven lengths; dropout differs between ranks, so the adapters here have none."""
    alike = partial(begin, adapter=Adapter(r=4), learning_rate=TrainerConfig().learning_rate)
    alike(tiny_model, pair_rows, tmp_path / "one")
    on_ranks(2, alike, tiny_model, pair_rows, tmp_path / "two")
    assert largest_difference(final(tmp_path / "one"), final(tmp_path / "two")) < 1e-5
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [r["step"] for r in two] == [r["step"] for r in one]
    for ours, theirs in zip(one, two, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
        assert ours["train/tokens"] == theirs["train/tokens"]


@pytest.mark.usefixtures("without_charts")
def test_a_second_run_of_the_same_policy_says_what_it_begins_from(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    for name in ("one", "two"):
        trainer = Trainer(policy, tmp_path / name, TrainerConfig(steps=1, max_length=200, batch_size=4))
        trainer.fit(DPO(), Preferences.from_rows(pair_rows))
    config = (tmp_path / "two" / "config.yaml").read_text(encoding="utf-8")
    assert f"model: {tiny_model.name}, trained in one\n" in config
    assert policy.name == f"{tiny_model.name}, trained in one, trained in two"
