"""The choice of a token: by each response's own random numbers, and what ends a response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from align.sampling.params import SamplingParams
from align.sampling.token_choice import TokenChoice

WORDS = ["a", "b", "the end", ".", "<end>", "é"]


class Tokenizer:
    """Six words, two of several letters."""

    def get_vocab(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(WORDS)}

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(WORDS[index] for index in ids)


def choice(seeds: Sequence[tuple[int, int]] = ((0, 0),), n: int = 1, **settings: Any) -> TokenChoice:
    return TokenChoice(SamplingParams(**settings), Tokenizer(), [4], seeds, n)  # pyright: ignore[reportArgumentType]


def likeliest(*tokens: int) -> Tensor:
    """Logits in which these tokens are the most probable of their rows."""
    return torch.eye(len(WORDS))[list(tokens)] * 5


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_token_is_where_its_random_number_falls(temperature: float) -> None:
    """The generator of a response is seeded with the seed, the key of its prompt and its own number; one draw a step.

    The token is the first whose cumulated probability is above the number.
    """
    probabilities = np.array([0.05, 0.3, 0.25, 0.15, 0.05, 0.2])
    tempered = probabilities ** (1 / temperature) / (probabilities ** (1 / temperature)).sum()
    seeds, n, steps = [(7, 30), (7, 10), (8, 30)], 3, 6
    choose = choice(seeds, n, temperature=temperature, max_new_tokens=steps)
    choose.stops = []
    logits = torch.tensor(np.log(probabilities)).float().expand(9, -1)
    for _ in range(steps):
        choose(logits, list(range(9)))
    for row, response in enumerate(choose.responses):
        seed, key = seeds[row // n]
        uniform = np.random.default_rng((seed, key, row % n)).random(steps)
        assert response.ids == np.searchsorted(np.cumsum(tempered), uniform, side="right").tolist()
        assert response.logps == pytest.approx(np.log(tempered)[response.ids].tolist(), abs=1e-5)
        assert not response.finished


def test_rows_in_any_order_have_their_own_numbers() -> None:
    logits = torch.zeros(4, 6)
    forward, backward = (choice([(0, 0), (0, 1)], 2, max_new_tokens=3) for _ in range(2))
    for choose, rows in ((forward, [0, 1, 2, 3]), (backward, [3, 1, 0, 2])):
        for _ in range(3):
            choose(logits, rows)
    assert [r.ids for r in forward.responses] == [r.ids for r in backward.responses]
    assert len({tuple(r.ids) for r in forward.responses}) == 4


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, {0, 1, 2, 3, 4, 5}),
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 2, 5}),
        ({"top_p": 0.9}, {1, 2, 3, 5}),  # .3 + .25 + .2 + .15
        ({"top_p": 0.5}, {1, 2}),  # .3 + .25
        ({"top_k": 2, "top_p": 0.5}, {1}),  # .3/.55 of what top_k leaves
        ({"temperature": 0}, {1}),
        ({"min_new_tokens": 2}, {0, 1, 2, 3, 5}),
        ({"min_new_tokens": 1}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_tokens_that_can_be_drawn(settings: dict[str, Any], kept: set[int]) -> None:
    """Their log-probabilities are those of the whole distribution."""
    probabilities = torch.tensor([0.05, 0.3, 0.25, 0.15, 0.05, 0.2])
    choose = choice([(0, p) for p in range(400)], 1, max_new_tokens=4, **settings)
    chosen, ended = choose(probabilities.log().expand(400, -1), list(range(400)))
    assert set(chosen.tolist()) == kept
    assert ended == (chosen == 4).tolist()
    for response, token in zip(choose.responses, chosen.tolist(), strict=True):
        assert response.logps == pytest.approx([probabilities[token].log().item()], abs=1e-6)


@pytest.mark.parametrize(
    ("stops", "least", "tokens", "ends"),
    [
        (("end",), 0, [0, 2, 0], 2),  # in the middle of a token's text
        (("he",), 0, [0, 2, 0], 2),  # and before the end of it
        (("b.", "ab"), 0, [0, 1, 3], 2),  # any of them
        (("x", "b."), 0, [0, 1, 3], 3),
        (("b.",), 0, [1, 0, 3], None),
        (("a",), 2, [0, 1, 0], 2),
        (("a",), 3, [0, 0, 0], 3),
        ((), 0, [0, 4, 0], 2),  # the end of the turn
        ((), 3, [4, 4, 4], 3),
        ((), 2, [4, 4, 4], 2),
    ],
)
def test_what_ends_a_response(stops: tuple[str, ...], least: int, tokens: list[int], ends: int | None) -> None:
    choose = choice(temperature=0, max_new_tokens=9, stop_strings=stops, min_new_tokens=least)
    for step, token in enumerate(tokens, start=1):
        _, (ended,) = choose(likeliest(token), [0])
        assert ended == (step == ends)
        assert choose.responses[0].finished == (step == ends)
        if ended:
            return
    assert ends is None


def test_a_stop_string_of_letters_that_take_several_tokens(tiny_policy: Any) -> None:
    """Four bytes each, one token for a byte; text before it changes nothing."""
    text = "👍👎"
    ids = tiny_policy.tokenizer("x" * 50 + text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 58
    params = SamplingParams(temperature=0, max_new_tokens=60, stop_strings=(text,))
    choose = TokenChoice(params, tiny_policy.tokenizer, [2], [(0, 0)], 1)
    ended = [choose(torch.eye(262)[[token]], [0])[1][0] for token in ids]
    assert ended == [False] * 57 + [True]


def test_greedy_log_probabilities_are_at_temperature_1() -> None:
    choose = choice(temperature=0, max_new_tokens=2)
    choose(torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0, 0.0]]), [0])
    assert choose.responses[0].logps == pytest.approx([2 - np.log(np.exp(2) + 5)])


def test_tokens_below_the_rounding_of_float32_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 − 5e-6, then 50,000 tokens of 1e-10, of which float32 tells only every six hundredth apart there.

    1 − 2.5e-6 falls in their middle.
    """
    monkeypatch.setattr("align.sampling.token_choice.known_ids", lambda _: list(range(50_001)))
    choose = choice(max_new_tokens=1)
    choose.uniform = np.array([[1 - 2.5e-6]])
    chosen, _ = choose(torch.tensor([[1 - 5e-6] + [1e-10] * 50_000], dtype=torch.float64).log().float(), [0])
    assert chosen.item() == pytest.approx(25_000, abs=50)


class TestOtherLoop:
    """The hooks that transformers' own loop calls: it keeps finished rows to the end."""

    def test_only_the_token_that_was_drawn_is_left(self) -> None:
        choose = choice([(0, 0)], 3, temperature=0, max_new_tokens=4)
        ids = torch.zeros(3, 1, dtype=torch.long)
        first = choose.process(ids, likeliest(1, 4, 2))
        assert torch.equal(first, torch.full((3, 6), -torch.inf).scatter(1, torch.tensor([[1], [4], [2]]), 0.0))
        second = choose.process(ids, likeliest(3, 5, 4))  # the finished row takes no part
        assert second[0].argmax() == 3
        assert second[2].argmax() == 4
        assert [r.ids for r in choose.responses] == [[1, 3], [4], [2, 4]]
        assert [r.finished for r in choose.responses] == [False, True, True]

    def test_it_ends_when_all_responses_have(self) -> None:
        choose = choice([(0, 0)], 2, temperature=0, max_new_tokens=4)
        ids = torch.zeros(2, 1, dtype=torch.long)
        assert choose.all_ended(ids, None).tolist() == [False, False]
        choose.process(ids, likeliest(4, 1))
        assert choose.all_ended(ids, None).tolist() == [False, False]
        choose.process(ids, likeliest(0, 4))
        assert choose.all_ended(ids, None).tolist() == [True, True]

    def test_scores_in_bfloat16_are_normalised_in_float32(self) -> None:
        choose = choice(temperature=0, max_new_tokens=1)
        choose.process(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[1.0, 3.0, 0, 0, 0, 0]]).bfloat16())
        expected = torch.tensor([1.0, 3.0, 0, 0, 0, 0]).log_softmax(-1)[1].item()
        assert choose.responses[0].logps == pytest.approx([expected], abs=1e-6)
