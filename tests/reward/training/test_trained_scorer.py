"""A reward model as a scorer reads what was trained, also in another process, and shares its base with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from reward.combinations.ensemble import Ensemble
from reward.models.reward_model import RewardModelScorer
from reward.training.modelling import RewardModel
from tests.forked import Forked


def test_the_models_of_an_ensemble_share_their_base(tiny_model: Path, tmp_path: Path, pairs: Preferences) -> None:
    folders: list[Path] = []
    for seed in (0, 1):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4), seed=seed)
        config = TrainerConfig(steps=3, batch_size=8, max_length=200, learning_rate=3e-2, save_steps=None, seed=seed)
        folders.append(Trainer(policy, tmp_path / str(seed), config).fit(RewardModel(), pairs).folder / "final/reward")
    asked: Any = (["Is it so?", "And this?"], [["yes", "no"], ["perhaps"]])
    alone = []
    for folder in folders:
        scorer = RewardModelScorer(model=str(folder))
        alone.append(scorer.score(*asked))
        del scorer
    assert alone[0] != alone[1]
    first, second = (RewardModelScorer(model=str(folder)) for folder in folders)
    assert [first.score(*asked), second.score(*asked), first.score(*asked)] == [*alone, alone[0]]
    assert first._classifier.model is second._classifier.model  # pyright: ignore[reportPrivateUsage]
    worst = Ensemble(scorers={"a": first, "b": second}, combine="min").score(*asked)
    assert worst == [[min(pair) for pair in zip(*rows, strict=True)] for rows in zip(*alone, strict=True)]


def load_elsewhere(folder: Path, asked: dict[str, Any], answer: Path) -> None:
    """Write the scores of the scorer, and the logits of transformers and PEFT alone."""
    scores = RewardModelScorer(model=str(folder)).score(asked["prompts"], asked["responses"])
    adapter, base = folder / "adapter_config.json", folder
    if adapter.exists():
        base = folder / json.loads(adapter.read_text())["base_model_name_or_path"]  # relative to the adapter
        assert ".." in base.parts
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    if adapter.exists():
        model = PeftModel.from_pretrained(model, str(folder))
    ids, mask = torch.tensor(asked["ids"]), torch.tensor(asked["mask"])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, attention_mask=mask).logits[:, 0]
    answer.write_text(json.dumps([[score for row in scores for score in row], logits.tolist()]))


@pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["lora", "full"])
def test_scores_after_a_reload_in_a_new_process_are_the_same_to_the_last_bit(
    adapter: Adapter | None, tiny_model: Path, tmp_path: Path, pairs: Preferences
) -> None:
    policy = Policy.load(str(tiny_model), adapter=adapter)
    config = TrainerConfig(steps=2, batch_size=8, max_length=200, learning_rate=3e-3, save_steps=None)
    folder = Trainer(policy, tmp_path / "run", config).fit(RewardModel(), pairs).folder / "final" / "reward"
    data = tokenize(pairs, policy.tokenizer, max_length=200, unit="pair")
    rows = [[*example.prompt_ids, *ids] for example in (data[i] for i in range(8)) for ids in example.responses]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # as the scorer puts them into a batch
    width = max(map(len, rows))
    ids = torch.tensor([rows[i] + [policy.pad_id] * (width - len(rows[i])) for i in order])
    mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in order])
    head = policy.roles.heads["reward"]
    with torch.no_grad(), policy.use("reward"):
        hidden = policy.model.eval().base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        raw = torch.nn.functional.linear(hidden, head.weight)[torch.arange(len(rows)), mask.sum(1) - 1, 0].tolist()

    texts = [pairs[data[i].index] for i in range(8)]
    asked = {
        "prompts": [text["prompt"][0]["content"] for text in texts],
        "responses": [[text["chosen"][0]["content"], text["rejected"][0]["content"]] for text in texts],
        "ids": ids.tolist(),
        "mask": mask.tolist(),
    }
    Forked(load_elsewhere, folder, asked, tmp_path / "answer.json").start().finish()
    scores, logits = json.loads((tmp_path / "answer.json").read_text())
    assert logits == raw
    assert [scores[i] for i in order] == [(value - head.mean) / head.std for value in raw]
    assert head.mean != 0
