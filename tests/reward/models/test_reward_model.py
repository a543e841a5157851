"""A reward model as a scorer: each setting reaches the model, and the scalar is that of each conversation alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)
from transformers.utils import logging

from align.data.encoding import Encoder
from align.data.load_report import RowError
from align.errors import UserError
from align.model.policy import Policy
from align.scoring.identity import model_identity
from align.settings.adapter import Adapter
from reward.models.reward_model import Classifier, RewardModelScorer, load_classifier

PROMPTS = ["Why?", "How much is it"]
RESPONSES = [["So.", "Because of the rain"], ["5"]]


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reward model of the tiny architecture."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(1)
    LlamaForSequenceClassification(LlamaConfig.from_pretrained(tiny_model, num_labels=1)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def by_hand(folder: Path, conversations: list[list[dict[str, str]]]) -> list[float]:
    """The logit of the last token, one conversation at a time, by transformers alone."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = LlamaForSequenceClassification.from_pretrained(folder).eval()
    out: list[float] = []
    for turns in conversations:
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        with torch.no_grad():
            out.append(model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).item())
    return out


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_prompts_are_user_turns_or_the_conversations_of_the_data(whole: Path) -> None:
    scorer = RewardModelScorer(model=str(whole))
    found = scorer.score(PROMPTS, RESPONSES, unused=[0, 0])
    expected = by_hand(whole, [turns(p, r) for p, row in zip(PROMPTS, RESPONSES, strict=True) for r in row])
    assert [len(row) for row in found] == [2, 1]
    assert [value for row in found for value in row] == pytest.approx(expected, abs=1e-5)
    asked = [turns("a", "b", "c"), [{"role": "system", "content": "s"}, {"role": "user", "content": "d"}]]
    found = scorer.score(PROMPTS, RESPONSES, messages=asked)
    expected = by_hand(
        whole,
        [[*own, turns("", r)[1]] for own, row in zip(asked, RESPONSES, strict=True) for r in row],
    )
    assert [value for row in found for value in row] == pytest.approx(expected, abs=1e-5)


def test_the_scale_of_one_trained_here(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / "scale.json").write_text(json.dumps({"mean": 3.0, "std": 2.0}))
    plain = RewardModelScorer(model=str(whole)).score(PROMPTS, RESPONSES)
    scaled = RewardModelScorer(model=str(tmp_path / "model")).score(PROMPTS, RESPONSES)
    for row, values in zip(scaled, plain, strict=True):
        assert row == pytest.approx([(value - 3) / 2 for value in values])


def test_a_longer_conversation_is_an_error(whole: Path) -> None:
    length = len(encoded(whole, "Why?", "Because of the rain"))
    RewardModelScorer(model=str(whole), max_length=length).score(PROMPTS, RESPONSES)
    with pytest.raises(
        UserError, match=f"of {length} tokens is longer than max_length={length - 1} of the reward model"
    ):
        RewardModelScorer(model=str(whole), max_length=length - 1).score(PROMPTS, RESPONSES)
    assert RewardModelScorer(model=str(whole)).score([], []) == []


def encoded(folder: Path, prompt: str, response: str) -> list[int]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    (one,) = Encoder.of(tokenizer).conversations(tokenizer, [prompt], [[response]])
    return [*one.prompt, *one.responses[0]]


@pytest.mark.parametrize(("tokens", "sizes"), [(1, [1, 1, 1]), (10**6, [3]), (None, [3])])
def test_forward_passes_hold_so_many_tokens(
    tokens: int | None, sizes: list[int], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = Classifier.__call__

    def counting(self: Classifier, rows: Any) -> Any:
        seen.append(len(rows))
        assert not torch.is_grad_enabled()
        return plain(self, rows)

    monkeypatch.setattr(Classifier, "__call__", counting)
    scorer = RewardModelScorer(model=str(whole), tokens_per_batch=tokens)
    found = scorer.score(PROMPTS, RESPONSES)
    assert seen == sizes
    expected = by_hand(whole, [turns(p, r) for p, row in zip(PROMPTS, RESPONSES, strict=True) for r in row])
    assert [value for row in found for value in row] == pytest.approx(expected, abs=1e-5)


def test_on_a_cpu_a_forward_pass_has_2048_tokens(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Classifier, "__call__", lambda _, rows: seen.append(len(rows)) or torch.zeros(len(rows)))
    scorer: Any = RewardModelScorer(model=str(whole))
    for length, sizes in ((1024, [2]), (1025, [1, 1])):
        seen.clear()
        assert scorer._score_rows([[5] * length] * 2) == [0.0, 0.0]
        assert seen == sizes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_type_and_the_template_reach_the_model(dtype: Any, whole: Path) -> None:
    scorer: Any = RewardModelScorer(model=str(whole), dtype=dtype, chat_template="hh")
    assert scorer._classifier.model.dtype == getattr(torch, dtype)
    assert not scorer._classifier.model.training
    assert scorer._tokenizer.chat_template != AutoTokenizer.from_pretrained(whole).chat_template
    (values,) = scorer.score(["Why?"], [["So."]])
    assert values == pytest.approx(
        RewardModelScorer(model=str(whole), chat_template="hh").score(["Why?"], [["So."]])[0], abs=0.02
    )
    assert scorer._score_rows([[7, 8]]) != scorer._score_rows([[8, 7]])


def test_settings(whole: Path) -> None:
    scorer = RewardModelScorer(model=str(whole))
    assert (scorer.revision, scorer.chat_template, scorer.dtype) == (None, None, "float32")
    assert (scorer.max_length, scorer.tokens_per_batch, scorer.name, scorer.costly) == (
        2048,
        None,
        "reward_model",
        True,
    )
    assert scorer.role_folder == whole
    for settings in ({"max_length": 2}, {"tokens_per_batch": 1}, {"max_length": 2, "tokens_per_batch": 1}):
        RewardModelScorer(model=str(whole), **settings)
    for settings in ({"max_length": 1}, {"tokens_per_batch": 0}, {"max_length": 1, "tokens_per_batch": 1}):
        with pytest.raises(UserError, match="max_length must be at least 2 and tokens_per_batch at least 1"):
            RewardModelScorer(model=str(whole), **settings)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"tokens_per_batch": 3}, True),
        ({"name": "other"}, True),
        ({"revision": "main"}, True),  # of a folder there is none
        ({"max_length": 99}, False),  # a longer conversation is an error there
        ({"dtype": "bfloat16"}, False),
        ({"chat_template": "hh"}, False),
    ],
)
def test_every_setting_that_changes_scores_is_part_of_the_identity(
    change: dict[str, Any], same: bool, whole: Path
) -> None:
    plain = RewardModelScorer(model=str(whole)).identity()
    assert (RewardModelScorer(model=str(whole), **change).identity() == plain) is same
    assert plain["model"] == model_identity(str(whole))
    assert "base" not in plain


def test_the_revision_is_part_of_the_identity_of_a_name_on_the_hub() -> None:
    one, two = (RewardModelScorer(model="someone/rm", revision=revision).identity() for revision in ("a", "b"))
    assert (one["model"], two["model"]) == ("someone/rm@a", "someone/rm@b")


def test_a_model_with_several_labels_is_refused(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(whole, num_labels=2)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has 2 labels; a reward model has one"):
        load_classifier(str(tmp_path), torch.float32)


def test_a_folder_that_cannot_be_loaded(tmp_path: Path, whole: Path) -> None:
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    try:
        with pytest.raises(UserError, match=rf"the reward model {tmp_path} could not be loaded"):
            load_classifier(str(tmp_path), torch.float32)
        assert logging.get_verbosity() == logging.WARNING
        load_classifier(str(whole), torch.float32)
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.set_verbosity(before)
    shutil.copytree(whole, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"its weights are a pickle \(pytorch_model\.bin\)"):
        load_classifier(str(tmp_path / "pickled"), torch.float32)


def test_an_encoder_pools_by_itself_and_sees_no_padding() -> None:
    """BERT, which reads in both directions: the same alone and beside a longer row."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    model = BertForSequenceClassification(config).eval()
    rows = [[3, 4, 5, 6, 7], [8, 9]]
    with torch.no_grad():
        expected = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
        found = Classifier(model)(rows)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected)


def test_adapters_on_one_base_are_told_apart_by_type(tiny_model: Path, tmp_path: Path) -> None:
    """Two adapters share a base of one type, each with its own head; another type has a base of its own."""
    for seed in (0, 1):
        policy = Policy.load(tiny_model, adapter=Adapter(r=2), seed=seed)
        torch.manual_seed(seed)
        policy.require(["reward"])
        policy.roles.save("reward", tmp_path / str(seed))
    one, two = (load_classifier(str(tmp_path / str(seed)), torch.float32) for seed in (0, 1))
    other = load_classifier(str(tmp_path / "0"), torch.bfloat16)
    assert one.model is two.model is not other.model
    assert (one.adapter, two.adapter) == ("0", "1")
    assert (one.model.dtype, other.model.dtype) == (torch.float32, torch.bfloat16)
    assert not any(module.training for model in (one.model, other.model) for module in model.modules())
    rows = [[7, 8, 9], [10, 11]]
    with torch.no_grad():
        first, second, again = one(rows), two(rows), one(rows)
        rounded = other(rows)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=1e-2)
    torch.testing.assert_close(rounded, first, atol=0.1, rtol=0.05)


def test_a_prompt_that_cannot_be_encoded_is_an_error(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RowError("no such role")

    monkeypatch.setattr(Encoder, "conversations", refuse)
    with pytest.raises(UserError, match=rf"a prompt cannot be encoded for {whole}: no such role\."):
        RewardModelScorer(model=str(whole)).score(PROMPTS, RESPONSES)


def test_a_base_that_is_gone_is_answered(tmp_path: Path) -> None:
    config = {"base_model_name_or_path": str(tmp_path / "moved"), "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for load in (lambda: Policy.load_saved(tmp_path), lambda: load_classifier(str(tmp_path), torch.float32)):
        with pytest.raises(UserError, match=r"adapter_config\.json: its base .*moved is gone; put it back, or write"):
            load()


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>", None])
def test_a_reward_model_from_elsewhere(pad: str | None, tiny_model: Path, tmp_path: Path) -> None:
    """Its own head, tokenizer and template; the scalar is that of the last token, also where pad is that token."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    config = LlamaConfig.from_pretrained(tiny_model, num_labels=1)
    words = AutoTokenizer.from_pretrained(tiny_model).backend_tokenizer.to_str()  # pyright: ignore[reportAttributeAccessIssue]
    if pad is None:  # no token of the vocabulary may serve as one
        words = words.replace("<|pad|>", "<|none|>")
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(words), bos_token="<|bos|>", eos_token="<|end|>", pad_token=pad
    )
    tokenizer.chat_template = "{% for m in messages %}<|bos|>{{ m['content'] }}<|end|>{% endfor %}"
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(1)
    model: Any = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    prompts, responses = ["Why?", "How much is it"], [["So.", "Because of the rain"], ["5", "No"]]
    found = RewardModelScorer(model=str(tmp_path)).score(prompts, responses)
    for prompt, row, scores in zip(prompts, responses, found, strict=True):
        for response, value in zip(row, scores, strict=True):
            text = f"<|bos|>{prompt}<|end|><|bos|>{response}<|end|>"
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                logit = model.score(model.model(input_ids=ids).last_hidden_state[:, -1]).item()
            assert value == pytest.approx(logit, abs=1e-5)
