"""Rows that give no example: what is rejected, left out or noted, how it is reported, and how much is too much."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from align.data import Preferences
from align.data.examples import tokenize
from align.errors import UserError
from tests.align.data.conftest import Pair


def test_conversation_the_template_refuses_is_rejected(bos_adding: Any, pair: Pair) -> None:
    tokenizer = copy.deepcopy(bos_adding)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    rows = [pair(0, prompt=turns[1:]), pair(1, prompt=turns)]
    tokenized = tokenize(Preferences.from_rows(rows), tokenizer, max_length=100, max_rejected=0.5)
    assert tokenized.report.examples["chat template refuses the conversation"] == (
        "rows:2: chat template refuses the conversation (no system turn)",
    )


def test_defaults_of_tokenising(chatml: Any, pair: Pair) -> None:
    """Pairs, and the limit of the data; 0 is a limit too."""
    data = Preferences.from_rows([pair(0), pair(1, rejected=None), pair(2)], max_rejected=0.4)
    assert tokenize(data, chatml, max_length=100).unit == "pair"
    assert tokenize(data, chatml, max_length=100).report.rejected == {"rejected is null": 1}
    with pytest.raises(UserError, match=r"1 of 3 rows rejected \(33\.3%, allowed 0\.0%\)"):
        tokenize(data, chatml, max_length=100, max_rejected=0.0)
    with pytest.raises(UserError, match=r"give data with what a pair needs, or accept the loss"):
        tokenize(data, chatml, max_length=100, max_rejected=0.3)
    alike = Preferences.from_rows([pair(0), pair(1, chosen="a" * 99 + "b", rejected="a" * 99)])
    with pytest.raises(UserError, match=r"give data with what a pair needs, raise max_length \(40\), or accept"):
        tokenize(alike, chatml, max_length=40)
    with pytest.raises(
        UserError, match=r"pair needs, or take a method that learns from demonstrations \(supervised\)\.$"
    ):
        tokenize(data.select([1]), chatml, max_length=100)


def test_nothing_may_be_left_where_that_is_allowed(chatml: Any, pair: Pair) -> None:
    data = Preferences.from_rows([pair(0, rejected=None)])
    with pytest.raises(UserError, match="1 of 1 rows rejected"):
        tokenize(data, chatml, max_length=100, max_rejected=1.0)
    empty = tokenize(data, chatml, max_length=100, max_rejected=1.0, may_be_empty=True)
    assert (len(empty), list(empty), empty.lengths.tolist()) == (0, [], [])


def test_the_report_of_tokenising(pad_is_eos: Any, pair: Pair) -> None:
    rows = [
        pair(0),
        *(pair(n, rejected=None) for n in range(1, 5)),
        *(pair(n, prompt=f"Z{n}" * 30, chosen="Y" * 90) for n in range(5, 10)),
    ]
    data = Preferences.from_rows(rows, name="mine")
    tokenized = tokenize(data, pad_is_eos, max_length=100, max_rejected=0.5)
    report = tokenized.report
    assert (report.source, report.rule, report.polarity) == ("mine", "pair", data.report.polarity)
    assert (report.read, report.kept, len(tokenized)) == (10, 6, 6)
    assert report.rejected == {"rejected is null": 4}
    assert report.noted == {"response truncated to max_length": 5}
    assert report.examples == {
        "rejected is null": tuple(f"mine:{n}: rejected is null (a pair needs it)" for n in (2, 3, 4)),
        "response truncated to max_length": tuple(f"mine:{n}: response truncated to max_length" for n in (6, 7, 8)),
    }
    assert [example.index for example in tokenized] == [0, 5, 6, 7, 8, 9]
    assert tokenized[0] == tokenized[-6]
    assert [example.index for example in tokenized[4:0:-2]] == [8, 6]
    assert tokenized.preferences.fingerprint == data.fingerprint


def test_a_prompt_or_a_response_without_tokens_is_rejected() -> None:
    """Some tokenizers drop characters: here everything but the letters a and b."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}, unk_token="a"))
    tokenizer.normalizer = normalizers.Replace(Regex("[^ab]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    rows = [
        {"prompt": "a", "chosen": "a", "rejected": "b"},
        {"prompt": "c", "chosen": "a", "rejected": "b"},
        {"prompt": "a", "chosen": "a", "rejected": "c"},
        {"prompt": "a", "chosen": "ca", "rejected": "a"},
    ]
    report = tokenize(Preferences.from_rows(rows), letters, max_length=9, max_rejected=0.9).report
    assert report.kept == 1
    assert report.rejected == {
        "prompt has no tokens": 1,
        "response has no tokens": 1,
        "identical after tokenisation": 1,
    }
    assert report.examples["identical after tokenisation"] == ("rows:4: identical after tokenisation",)


@pytest.mark.parametrize("unit", ["pair", "ranking"])
def test_good_and_bad_answers_to_different_prompts_are_no_pairs(unit: Any, chatml: Any) -> None:
    """Three good and five bad: sft loses five of eight, 0.625, so that 0.65 is enough."""
    rows = [{"prompt": f"q{n}", "completion": "an answer", "label": n < 3} for n in range(8)]
    sentence = (
        rf"^rows: a {unit} needs a good and a bad answer to one prompt; 0 prompts have both, but 3 good and 5 bad "
        r"answers stand alone; give such prompts, or fine-tune on the good ones \(supervised, with "
        r"data\.max_rejected=0\.65\), or take a method that learns from judgements, each answer for itself\.$"
    )
    with pytest.raises(UserError, match=sentence):
        tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit=unit)
    both = [*rows, {"prompt": "q0", "completion": "another", "label": False}]
    sentence = (
        r"1 prompts have both, but 2 good and 5 bad answers stand alone; give such prompts, leave the others out "
        r"\(data\.max_rejected=0\.9\), or fine-tune on the good ones \(supervised, with data\.max_rejected=0\.7\)"
    )
    with pytest.raises(UserError, match=sentence):  # 7 of 8 examples are lost, or 6 of 9 answers
        tokenize(Preferences.from_rows(both), chatml, max_length=100, unit=unit)
    assert len(tokenize(Preferences.from_rows(both, max_rejected=0.9), chatml, max_length=100, unit=unit)) == 1
    assert (
        len(tokenize(Preferences.from_rows(both, max_rejected=0.7), chatml, max_length=99, unit="demonstration")) == 3
    )
    data = Preferences.from_rows(rows, max_rejected=0.65)
    assert len(tokenize(data, chatml, max_length=100, unit="demonstration")) == 3
    with pytest.raises(UserError, match=r"0 good and 5 bad answers stand alone; give such prompts, or take a"):
        tokenize(Preferences.from_rows(rows[3:]), chatml, max_length=100, unit=unit)


def test_data_of_which_nothing_is_left_has_no_share_of_it(chatml: Any) -> None:
    """One row is rejected and one too long: all of them are lost, not half."""
    rows = [{"prompt": "a", "chosen": "b"}, {"prompt": "long " * 50, "chosen": "b", "rejected": "c"}]
    rows = [{"rejected": None, **row} for row in rows]
    with pytest.raises(UserError, match=r"2 of 2 rows rejected or left out \(none is left\)"):
        tokenize(Preferences.from_rows(rows), chatml, max_length=30)


@pytest.mark.parametrize("unit", ["pair", "ranking", "demonstration", "prompt", "judgement"])
def test_rows_of_weight_0_are_left_out_and_counted(unit: Any, chatml: Any, pair: Pair) -> None:
    """Whole batches of them would be steps without a loss."""
    rows = [pair(0, weight=0), pair(1, weight=0.5), pair(2, weight=None)]
    data = Preferences.from_rows(rows, too_long="error")
    tokenized = tokenize(data, chatml, max_length=100, unit=unit, max_rejected=0.0)
    assert [example.weight for example in tokenized] == [0.5, 1.0]
    assert (tokenized.report.kept, tokenized.report.left_out) == (2, {"weight is 0": 1})
    with pytest.raises(UserError, match=r"none is left.*, and weights above 0"):
        tokenize(Preferences.from_rows(rows[:1]), chatml, max_length=100, unit=unit)
