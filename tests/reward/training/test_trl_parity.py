"""Loss, gradients and metrics of reward modelling against TRL's own RewardTrainer: same text, same weights.

The weights pass through the folder that `save` writes, loaded by PEFT onto transformers' sequence-classification
model, and the text through TRL's own chat template and collator, so that both are compared as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from align import Policy, Preferences
from align.data.examples import tokenize
from align.model.batch import Batch
from reward.training.modelling import RewardModel

MARGINS = [0.5, 0.0, 1.25, 0.0, 2.0, 0.1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def policy(tiny_policy: Policy) -> Policy:
    """With a reward role whose adapter is not the identity and whose rewards are of the usual size."""
    tiny_policy.require(("reward",))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in tiny_policy.roles.weights("reward").items():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        tiny_policy.roles.heads["reward"].weight.mul_(10)
    return tiny_policy


@pytest.fixture
def rows(pair_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "margin": margin} for row, margin in zip(pair_rows[:6], MARGINS, strict=True)]


def trl_trainer(policy: Policy, rows: list[dict[str, Any]], folder: Path, *, margin: bool, centring: float) -> Any:
    def turn(role: str, content: str) -> list[dict[str, str]]:
        return [{"role": role, "content": content}]

    data = {
        "prompt": [turn("user", row["prompt"]) for row in rows],
        "chosen": [turn("assistant", row["chosen"]) for row in rows],
        "rejected": [turn("assistant", row["rejected"]) for row in rows],
    }
    policy.roles.save("reward", folder / "reward")
    base = policy.model.config.name_or_path
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return RewardTrainer(
        model=PeftModel.from_pretrained(model, str(folder / "reward"), is_trainable=True),
        args=RewardConfig(
            output_dir=str(folder / "trl"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            center_rewards_coefficient=centring or None,
        ),
        train_dataset=Dataset.from_dict({**data, "margin": [row["margin"] for row in rows]} if margin else data),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def trl_result(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


def our_result(policy: Policy, method: RewardModel, batch: Batch) -> tuple[float, dict[str, Tensor], Any]:
    with policy.use("reward"):
        loss = method.loss(policy, batch)
        total = loss.sums["reward"] / method.weight(batch)
        total.backward()
    parameters = policy.roles.parameters("reward")
    return total.item(), {name: p.grad for name, p in parameters.items() if p.grad is not None}, loss.metrics


def in_trl(name: str) -> str:
    if name == "score.weight":
        return "base_model.model.score.modules_to_save.default.weight"
    return name.replace(".weight", ".default.weight")


@pytest.mark.parametrize(("margin", "centring"), [(False, 0.0), (True, 0.0), (True, 0.01)])
def test_reward_trainer(
    margin: bool, centring: float, policy: Policy, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    trainer = trl_trainer(policy, rows, tmp_path, margin=margin, centring=centring)
    theirs, their_gradients = trl_result(trainer)

    ours = rows if margin else [{**row, "margin": None} for row in rows]
    data = tokenize(Preferences.from_rows(ours), policy.tokenizer, max_length=200, unit="ranking")
    examples = [data[i] for i in range(len(data))]
    for example, row in zip(examples, trainer.train_dataset, strict=True):
        assert [[*example.prompt_ids, *ids] for ids in example.responses] == [row["chosen_ids"], row["rejected_ids"]]
    found, gradients, metrics = our_result(policy, RewardModel(centring=centring), Batch.from_examples(examples))

    assert found == pytest.approx(theirs, abs=1e-5)
    assert theirs != pytest.approx(0.693147, abs=0.05)  # the rewards differ
    assert {in_trl(name) for name in gradients} == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[in_trl(name)], rtol=1e-4, atol=1e-5, msg=name)
    logged = {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}
    assert logged["accuracy"] == pytest.approx(trainer._metrics["train"]["accuracy"][0])
    assert logged["margin"] == pytest.approx(trainer._metrics["train"]["margin"][0], abs=1e-5)
