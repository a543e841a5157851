"""Text in, text out: the answers are the sampler's, and pieces of one that grows join to it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from align import Preferences
from align.data.encoding import encode_prompt
from align.errors import UserError
from align.model.policy import Policy
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.sampling.text import text_pieces

QUESTION = [{"role": "user", "content": "What is 2?"}]


def grown(ids: list[int]) -> Iterator[Response]:
    yield from (Response(ids[: i + 1]) for i in range(len(ids)))


def test_a_text_a_conversation_and_lists_of_them(tiny_policy: Policy) -> None:
    text = tiny_policy.generate("What is 2?", temperature=0, max_new_tokens=8)
    ids = encode_prompt(tiny_policy.tokenizer, QUESTION)
    [[drawn]] = Sampler(tiny_policy, SamplingParams(temperature=0, max_new_tokens=8)).generate([ids])
    assert text == tiny_policy.decode(drawn.ids)
    assert tiny_policy.generate(QUESTION, temperature=0, max_new_tokens=8) == text
    assert tiny_policy.generate([QUESTION, QUESTION], temperature=0, max_new_tokens=8) == [text, text]
    assert tiny_policy.generate(["What is 2?"], temperature=0, max_new_tokens=8) == [text]
    assert tiny_policy.generate([]) == []
    row = Preferences.from_rows([{"prompt": "What is 2?", "chosen": "2", "rejected": "3"}])[0]
    assert tiny_policy.generate(row["prompt"], temperature=0, max_new_tokens=8) == text


def test_the_seed_and_the_role_in_use_decide(tiny_policy: Policy) -> None:
    first = tiny_policy.generate("Hello", seed=1, max_new_tokens=12)
    assert first == tiny_policy.generate("Hello", seed=1, max_new_tokens=12)
    assert first != tiny_policy.generate("Hello", seed=2, max_new_tokens=12)
    tiny_policy.require(["reference"])
    with tiny_policy.use("reference"):
        assert first != tiny_policy.generate("Hello", seed=1, max_new_tokens=12)


@pytest.mark.parametrize(
    ("prompt", "sampling", "words"),
    [
        ("Hello", {"temprature": 1}, 'temprature is not a setting of SamplingParams. Did you mean "temperature"'),
        ("Hello", {"temperature": float("nan")}, "temperature=nan must be at least 0 and finite"),
        ([{"role": "wizard", "content": "a"}], {}, "the prompt cannot be answered: unknown role"),
        ([{"role": "user"}], {}, "message without content"),
        ([[]], {}, "the prompt is an empty list"),
        ("a" * 200, {}, r"a prompt of 203 tokens and max_new_tokens=128 are more than the model's 256 positions"),
    ],
)
def test_wrong_words(prompt: Any, sampling: dict[str, Any], words: str, tiny_policy: Policy) -> None:
    with pytest.raises(UserError, match=words):
        tiny_policy.generate(prompt, **sampling)


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_joins_to_the_answer(seed: int, tiny_policy: Policy) -> None:
    """The tiny model draws random bytes, most of them no whole character."""
    sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=60))
    [[expected]] = sampler.generate([[7, 8, 9]], seed=seed, keys=[3])
    *_, response = sampler.stream([7, 8, 9], seed=seed, key=3)
    assert response == expected
    assert "".join(text_pieces(tiny_policy, grown(response.ids))) == tiny_policy.decode(expected.ids)


def test_a_stream_that_is_closed_leaves_the_weights_as_they_were(tiny_policy: Policy) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_policy.model.state_dict().items()}
    drawn = Sampler(tiny_policy, SamplingParams(max_new_tokens=60)).stream([7, 8, 9])
    next(drawn)
    drawn.close()
    assert all((before[name] == tensor).all() for name, tensor in tiny_policy.model.state_dict().items())


def test_pieces_are_whole_characters_without_special_tokens(tiny_policy: Policy) -> None:
    """One token is a byte here: é has two, 中 three and 🙂 four, after which it shows."""
    text = "né 中 🙂."
    ids = [*tiny_policy.tokenizer(text)["input_ids"], 3, 2]  # <|user|> and <|end|>
    assert list(text_pieces(tiny_policy, grown(ids))) == ["n", "é", " ", "中", " ", "🙂", "."]


def test_blanks_show_with_the_word_after_them(tiny_policy: Policy) -> None:
    """Those around an answer are no part of it."""
    ids = tiny_policy.tokenizer(" \na  b\n\n")["input_ids"]
    assert list(text_pieces(tiny_policy, grown(ids))) == ["a", "  b"]


def test_text_that_a_decoder_takes_back_is_said_anew() -> None:
    """As byte fallback does: a group of bytes of which one is wrong shows none of its characters."""
    texts = ["a", "a中", "a\ufffd\ufffd", "a\ufffd\ufffdb", "a\ufffd\ufffdb\ufffd"]
    policy: Any = SimpleNamespace(decode=lambda ids: texts[len(ids) - 1])
    assert list(text_pieces(cast("Policy", policy), grown([0] * 5))) == ["a", "中", "\ufffd\ufffdb", "\ufffd"]
