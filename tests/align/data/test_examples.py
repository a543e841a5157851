"""Examples of each unit: prompt, responses, and the columns that come with them."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data import Example, Preferences
from align.data.encoding import encode_prompt, encode_response, end_of_turn_id
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.rendering import chat_template
from align.errors import UserError
from tests.align.data.conftest import Pair


def test_pair(chatml: Any, pair: Pair) -> None:
    extra = {
        "chosen_score": 2.0, "margin": 0.5, "weight": 0.25, "prompt_id": "p", "answer": "1", "source": "s",
    }  # fmt: skip
    rows = [pair(7), pair(0) | extra]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100)
    assert tokenized[1] == Example(
        prompt_ids=encode_prompt(chatml, rows[1]["prompt"]),
        responses=[encode_response(chatml, rows[1][side]) for side in ("chosen", "rejected")],
        scores=[2.0, None],
        margin=0.5,
        weight=0.25,
        prompt_id="p",
        index=1,
        answer="1",
        source="s",
        comparisons=[[0, 1]],
    )
    assert tokenized[0].weight == 1.0
    assert tokenized[0].margin is None
    assert tokenized[-1] == tokenized[1]
    assert tokenized[:] == list(tokenized) == [tokenized[0], tokenized[1]]
    with pytest.raises(IndexError):
        tokenized[2]


def test_lengths_count_all_tokens(chatml: Any, pair: Pair) -> None:
    tokenized = tokenize(
        Preferences.from_rows([pair(0, chosen="yes " * n) for n in range(1, 9)]),
        chatml,
        max_length=60,
        max_rejected=0.5,
    )
    expected = [len(example.prompt_ids) + sum(map(len, example.responses)) for example in tokenized]
    assert tokenized.lengths.tolist() == expected
    assert len(set(expected)) > 3


def test_messages_without_a_template_are_an_error(pad_is_eos: Any, pair: Pair) -> None:
    preferences = Preferences.from_rows([pair(0, prompt=[{"role": "user", "content": "Hello"}])])
    with pytest.raises(UserError, match=r"model\.chat_template="):
        tokenize(preferences, pad_is_eos, max_length=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unit": "pairs"}, 'Did you mean "pair"'), ({"max_length": 2}, "max_length=2 leaves no room")],
)
def test_wrong_arguments(options: dict[str, Any], message: str, chatml: Any, pair: Pair) -> None:
    with pytest.raises(UserError, match=message):
        tokenize(Preferences.from_rows([pair()]), chatml, **({"max_length": 9} | options))


def test_hh_on_a_real_tokenizer(hh_file: Path, story_tokenizer: Any) -> None:
    """All 2,303 pairs of the real file, in seconds, with every prompt and response as the text says."""
    tokenizer = copy.deepcopy(story_tokenizer)
    tokenizer.chat_template = chat_template("hh")
    preferences = Preferences.load(hh_file)
    start = time.perf_counter()
    tokenized = tokenize(preferences, tokenizer, max_length=16_384)
    assert time.perf_counter() - start < 15
    assert len(tokenized) == 2303
    assert not tokenized.report.noted
    assert np.all(tokenized.lengths > 0)
    for example in tokenized[::97]:
        row = preferences[example.index]
        assert example.prompt_ids == encode_prompt(tokenizer, row["prompt"])
        for ids, side in zip(example.responses, ("chosen", "rejected"), strict=True):
            text = tokenizer.decode(example.prompt_ids + ids)
            assert text.endswith(f"{row['prompt'][-1]['content']}\n\nAssistant: {row[side][0]['content']}</s>")


def test_of_a_prompt_that_stands_twice_the_first_row_is_kept(chatml: Any, pair: Pair) -> None:
    rows = [
        pair(0, source="first"),
        pair(1, source="b"),
        pair(0, source="again", chosen="Another."),
        pair(1, source="c", chosen="Yes."),
    ]
    prompts = tokenize(Preferences.from_rows(rows), chatml, max_length=99, unit="prompt").distinct_prompts()
    assert [example.index for example in prompts] == [0, 1]
    assert prompts[0].source == "first"
    assert prompts.lengths.tolist() == [len(example.prompt_ids) for example in prompts]


def test_each_row_of_a_unit_keeps_its_columns(chatml: Any, pair: Pair) -> None:
    fields = {"chosen_score": 2.0, "rejected_score": 1.0, "margin": 3.0, "weight": 0.25, "prompt_id": "p"}
    data = Preferences.from_rows([pair(0, **fields, answer="x", source="s")])
    chosen, rejected = (encode_response(chatml, data[0][side]) for side in ("chosen", "rejected"))
    shared: dict[str, Any] = {"prompt_ids": encode_prompt(chatml, data[0]["prompt"]), "weight": 0.25, "prompt_id": "p"}
    shared |= {"index": 0, "answer": "x", "source": "s"}
    both = {"responses": [chosen, rejected], "scores": [2.0, 1.0], "comparisons": [[0, 1]], "margin": 3.0}
    wanted: dict[Any, dict[str, Any]] = {
        "prompt": {"responses": [], "scores": []},
        "demonstration": {"responses": [chosen], "scores": [2.0]},
        "pair": both,
        "ranking": both,
    }
    for unit, expected in wanted.items():
        (example,) = tokenize(data, chatml, max_length=100, unit=unit)
        assert example == Example(**shared, **expected)


def test_drawn_ids_in_a_pair_stand_where_their_response_stands(chatml: Any, pair: Pair) -> None:
    """One side drawn with this tokenizer keeps its ids, though its text alone would be encoded otherwise."""
    letters = [token for letter in "It is" for token in chatml(letter, add_special_tokens=False)["input_ids"]]
    end = end_of_turn_id(chatml)
    plain = chatml("It is", add_special_tokens=False)["input_ids"]
    assert letters != plain
    for side, place in (("chosen", 0), ("rejected", 1)):
        fields = {side: "It is", f"{side}_drawn": letters, "drawn_with": tokenizer_fingerprint(chatml)}
        tokenized = tokenize(Preferences.from_rows([pair(0, **fields)]), chatml, max_length=100)
        other = ("rejected", "chosen")[place]
        assert tokenized[0].responses[place] == letters  # no end of turn is added to what was cut off
        assert tokenized[0].responses[1 - place] == encode_response(chatml, pair(0)[other])
        assert not tokenized.report.noted
        stranger = tokenize(Preferences.from_rows([pair(0, **fields | {"drawn_with": "w"})]), chatml, max_length=100)
        assert stranger[0].responses[place] == [*plain, end]
        assert list(stranger.report.noted.values()) == [1]
