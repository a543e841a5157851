"""Scalar roles saved for others give there what they give here, whatever the base says about padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
)

from align.errors import UserError
from align.model.batch import Batch
from align.model.classifier import classifier, classifier_class, require_classifier
from align.model.policy import Policy
from align.settings.adapter import Adapter
from reward.models.reward_model import load_classifier
from tests.align.model.architectures import tiny_config, tiny_network

# Prompts and responses with the padding token (0) in them and the end of a turn (2) at the end
BATCH = Batch(([7, 8, 0, 9], [0, 10, 11]), (([12, 13, 2], [14, 0, 2]), ([15, 16], [17, 18, 19, 20, 21, 22, 2])), (0, 1))
CASES = ["pad is eos", "no pad", "pad is unknown", "another pad"]


def base(case: str, tiny_model: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    pads = {"pad is eos": 2, "no pad": None, "pad is unknown": 0, "another pad": 13}
    model.config.pad_token_id = model.generation_config.pad_token_id = pads[case]
    if case == "pad is eos":
        tokenizer.pad_token = tokenizer.eos_token
    if case == "pad is unknown":
        tokenizer.unk_token, tokenizer.pad_token = "<|pad|>", None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["adapter", "full"])
@pytest.mark.parametrize("case", CASES)
def test_others_read_the_same_scores(case: str, adapter: Adapter | None, tiny_model: Path, tmp_path: Path) -> None:
    folder = base(case, tiny_model, tmp_path / "base")
    policy = Policy.load(folder, adapter=adapter)
    policy.require(["reward"])
    with torch.no_grad():
        for parameter in policy.roles.parameters("reward").values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        with policy.use("reward"):
            policy.layout = "flat"
            expected = policy.scalars(BATCH)
    policy.save(tmp_path / "saved")

    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved" / "reward")
    assert theirs.pad_token_id == policy.pad_id != theirs.eos_token_id
    if adapter is None:
        model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved" / "reward")
        assert model.config.pad_token_id == policy.pad_id
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        model.config.pad_token_id = theirs.pad_token_id
        model.resize_token_embeddings(len(theirs), mean_resizing=False)
        model = PeftModel.from_pretrained(model, str(tmp_path / "saved" / "reward"))
    model.eval()
    rows = [[*p, *ids] for p, all_ids in zip(BATCH.prompt_ids, BATCH.response_ids, strict=True) for ids in all_ids]
    for side in ("right", "left"):
        inputs = theirs.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            found = model(**inputs).logits[:, 0].reshape(2, 2)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    for row, score in zip(rows, expected.flatten(), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(model(torch.tensor([row])).logits[0, 0], score, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["granite", "cohere2", "falcon_h1", "lfm2", "glm4_moe", "gemma4_text"])
@pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["adapter", "full"])
@pytest.mark.filterwarnings("ignore")
def test_families_without_a_classification_model(
    name: str, adapter: Adapter | None, tiny_model: Path, tmp_path: Path
) -> None:
    """Saved, loaded into another run, and read by the scorer."""
    tiny_network(tiny_config(name, vocab_size=264)).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    scores: list[torch.Tensor] = []
    for seed in (0, 1):
        policy = Policy.load(tmp_path / "base", adapter=adapter, seed=seed)
        policy.require(["reward"])
        if seed:
            policy.roles.load("reward", tmp_path / "saved")
        else:
            policy.roles.save("reward", tmp_path / "saved")
        with policy.use("reward"), torch.no_grad():
            policy.layout = "flat"
            scores.append(policy.scalars(BATCH))
    assert torch.equal(*scores)
    rows = [[*p, *ids] for p, all_ids in zip(BATCH.prompt_ids, BATCH.response_ids, strict=True) for ids in all_ids]
    with torch.no_grad():
        found = load_classifier(str(tmp_path / "saved"), torch.float32)(rows)
    torch.testing.assert_close(found, scores[0].flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_transformers_own_class_is_used_where_there_is_one(name: str) -> None:
    assert classifier_class(tiny_config(name)) is AutoModelForSequenceClassification


@pytest.mark.parametrize("name", ["bart", "ctrl", "whisper", "pegasus", "modernbert-decoder"])
def test_a_head_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"no sequence classification by a linear layer on {name} models"):
        require_classifier(tiny_config(name))


def test_the_configuration_of_the_model_stays_as_it_is(tiny_policy: Policy) -> None:
    """The classifier has one label; its configuration is a copy. The weights are shared."""
    tiny_policy.require(["reward"])
    config: Any = tiny_policy.model.config
    labels = config.num_labels
    require_classifier(config)
    full = Policy.load(config.name_or_path, adapter=None)
    head = torch.nn.Linear(32, 1, bias=False)
    made: Any = classifier(full.model.config, full.model.model.state_dict(), head)  # pyright: ignore[reportCallIssue]
    assert (made.config.num_labels, config.num_labels, full.model.config.num_labels) == (1, labels, labels)
    assert labels == 2
    assert made.score.weight.data_ptr() == head.weight.data_ptr()
    assert made.model.norm.weight.data_ptr() == full.model.model.norm.weight.data_ptr()  # pyright: ignore


HEADS = {
    "linear": (lambda width: torch.nn.Linear(width, 1, bias=False), True),
    "with a bias": (lambda width: torch.nn.Linear(width, 1), False),
    "two layers": (lambda width: torch.nn.Sequential(torch.nn.Linear(width, 1, bias=False)), False),
    "none": (lambda _: None, False),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_must_be_one_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, fits = HEADS[name]

    class Classification(LlamaForSequenceClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.score = make(config.hidden_size)

    monkeypatch.setattr("align.model.classifier.classifier_class", lambda _: Classification)
    if fits:
        require_classifier(tiny_config("llama"))
        return
    with pytest.raises(UserError, match="no sequence classification by a linear layer on llama models"):
        require_classifier(tiny_config("llama"))
