"""Losses and gradients of DPO and SFT against TRL's own trainers on the same model and the same batch.

What TRL 1.16 has under which name (`trl/trainer/dpo_trainer.py`, `_compute_loss`):

* ``sigmoid``, ``hinge`` and ``robust`` are ours; ``sigmoid`` ignores ``label_smoothing``.
* ``ipo`` divides each response's log-ratio by its number of tokens, end-of-sequence included: our default. There is no
  variant with sums.
* cDPO has no name of its own. ``aot_unpaired`` with label smoothing sorts the log-ratios of the batch before it takes
  the same loss of their differences, so on a batch of one pair it is cDPO.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from align.method.base import Method
from align.model.batch import Batch
from align.model.policy import Policy
from align.settings.adapter import Adapter
from methods.dpo.dpo import DPO
from methods.sft import SFT

pytestmark = [  # TRL and PEFT use names that transformers renames in v6
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

ADAPTER = Adapter(r=4)
PAIRS = {
    "prompt": ["the cat", "a big dog sees the old house", "tree"],
    "chosen": [" sees the dog", " finds a red tree", " likes the cat a dog sees"],
    "rejected": [" hears a small house the dog finds the tree", " a", " likes the big old house"],
}
LOSSES = {
    "sigmoid": DPO(beta=0.2),
    "hinge": DPO(beta=0.2, loss_type="hinge"),
    "robust": DPO(beta=0.2, loss_type="robust", label_smoothing=0.1),
    "ipo": DPO(beta=0.2, loss_type="ipo"),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy(ADAPTER)


@pytest.fixture
def dpo_trainer(make_llama: Any, tokenizer: Any, policy: Policy, tmp_path: Path) -> Callable[..., DPOTrainer]:
    def make(**settings: Any) -> DPOTrainer:
        trainer = DPOTrainer(
            model=make_llama(),
            args=DPOConfig(**_quiet(tmp_path), beta=0.2, **settings),
            train_dataset=Dataset.from_dict(PAIRS),
            processing_class=tokenizer,
            peft_config=ADAPTER.to_peft(),
        )
        _copy_adapter(policy, trainer)
        return trainer

    return make


def _quiet(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _copy_adapter(policy: Policy, trainer: Any) -> None:
    parameters = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, parameter in policy.roles.weights("policy").items():
            parameters[_in_trl(name)].copy_(parameter)


def _in_trl(name: str) -> str:
    return name.replace(".weight", ".default.weight")


def trl_result(trainer: Any, examples: list[dict[str, Any]]) -> tuple[float, dict[str, Tensor]]:
    """The loss that TRL's `compute_loss` gives for the batch of its own collator, and the adapter's gradient."""
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
    loss.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


def our_result(policy: Policy, method: Method, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    parameters = policy.roles.weights("policy")
    for parameter in parameters.values():
        parameter.grad = None
    with torch.no_grad():
        batch = method.prepare(policy, batch)
    loss = method.loss(policy, batch).sums["policy"] / method.weight(batch)
    loss.backward()
    return loss.item(), {_in_trl(name): p.grad for name, p in parameters.items() if p.grad is not None}


def assert_same(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-4, atol=1e-5, msg=name)


def pairs(examples: list[dict[str, Any]]) -> Batch:
    """Our batch of the token ids that TRL's trainer made of its dataset."""
    return Batch(
        prompt_ids=tuple(example["prompt_ids"] for example in examples),
        response_ids=tuple((example["chosen_ids"], example["rejected_ids"]) for example in examples),
        rows=tuple(range(len(examples))),
        columns={"weight_P": torch.ones(len(examples))},
    )


@pytest.mark.parametrize("loss_type", LOSSES)
def test_dpo(loss_type: str, policy: Policy, dpo_trainer: Callable[..., Any]) -> None:
    method = LOSSES[loss_type]
    trainer = dpo_trainer(loss_type=[loss_type], label_smoothing=method.label_smoothing)
    examples = list(trainer.train_dataset)
    expected = trl_result(trainer, examples)
    assert_same(our_result(policy, method, pairs(examples)), expected)
    assert expected[0] != pytest.approx(method_at_start(method), abs=1e-3)  # the policy has left its reference


def method_at_start(method: DPO) -> float:
    return {"sigmoid": 0.693147, "robust": 0.693147, "hinge": 1.0, "ipo": (1 / (2 * method.beta)) ** 2}[
        method.loss_type
    ]


def test_metrics(policy: Policy, dpo_trainer: Callable[..., Any]) -> None:
    trainer = dpo_trainer()
    examples = list(trainer.train_dataset)
    trl_result(trainer, examples)
    with torch.no_grad():
        method, batch = LOSSES["sigmoid"], pairs(examples)
        metrics = method.loss(policy, method.prepare(policy, batch)).metrics
    ours = {name: float(value) / float(weight) for name, (value, weight) in metrics.items() if name != "loss"}
    theirs = {name: trainer._metrics["train"][name][0] for name in ours}
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_cdpo(policy: Policy, dpo_trainer: Callable[..., Any]) -> None:
    """Pair by pair, see the module's docstring."""
    trainer = dpo_trainer(loss_type=["aot_unpaired"], label_smoothing=0.1)
    method = DPO(beta=0.2, loss_type="cdpo", label_smoothing=0.1)
    for example in trainer.train_dataset:
        assert_same(our_result(policy, method, pairs([example])), trl_result(trainer, [example]))


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_sft(loss_type: Any, policy: Policy, make_llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    """TRL masks the prompt of prompt-completion data and takes the mean over the batch's tokens."""
    data = Dataset.from_dict({"prompt": PAIRS["prompt"], "completion": PAIRS["chosen"]})
    trainer: Any = SFTTrainer(
        model=make_llama(),
        args=SFTConfig(**_quiet(tmp_path), loss_type=loss_type),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=ADAPTER.to_peft(),
    )
    _copy_adapter(policy, trainer)
    examples = list(trainer.train_dataset)
    batch = demonstrations(examples)
    assert batch.tokens == sum(len(text.split()) + 1 for text in PAIRS["chosen"])  # end of sequence included
    assert_same(our_result(policy, SFT(loss_type=loss_type), batch), trl_result(trainer, examples))


def demonstrations(examples: list[dict[str, Any]]) -> Batch:
    """Our batch of the token ids and labels that TRL's trainer made of its dataset; label −100 is the prompt."""
    cut = [sum(label == -100 for label in example["labels"]) for example in examples]
    return Batch(
        prompt_ids=tuple(example["input_ids"][:n] for example, n in zip(examples, cut, strict=True)),
        response_ids=tuple((example["input_ids"][n:],) for example, n in zip(examples, cut, strict=True)),
        rows=tuple(range(len(examples))),
        columns={"weight_P": torch.ones(len(examples))},
    )
