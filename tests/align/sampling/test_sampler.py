"""Drawn responses: from the right distribution, the same in any batch, and ended at the right token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from align.errors import UserError
from align.model.batch import Batch
from align.model.policy import Policy
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.sampling.token_choice import TokenChoice
from tests.align.model.test_tree_layout import policy_of
from tests.align.sampling.test_decode_loop import HYBRID


class TestSampler:
    prompts = ([7, 8, 9], [10], [11, 12, 13, 14, 15])

    def test_greedy_is_what_a_plain_loop_finds(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(temperature=0, max_new_tokens=6))
        found = sampler.generate(self.prompts)
        for prompt, (response,) in zip(self.prompts, found, strict=True):
            ids = list(prompt)
            with torch.no_grad():
                for token in response.ids:
                    assert int(tiny_policy.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
                    ids.append(token)

    def test_the_same_seed_draws_the_same_and_leaves_the_random_state_alone(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=8))
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = sampler.generate(self.prompts, n=2, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        assert first == sampler.generate(self.prompts, n=2, seed=1)
        assert first != sampler.generate(self.prompts, n=2, seed=2)
        assert [len(drawn) for drawn in first] == [2, 2, 2]

    def test_responses_end_with_the_first_end_of_turn(self, tiny_policy: Policy) -> None:
        responses = Sampler(tiny_policy, SamplingParams(max_new_tokens=200)).generate(self.prompts, n=4)
        for drawn in responses:
            for response in drawn:
                assert 2 not in response.ids[:-1]
                assert response.finished == (response.ids[-1] == 2)
                assert response.finished or len(response.ids) == 200

    def test_sampled_frequencies_follow_the_log_probabilities(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=1, temperature=0.5))
        (drawn,) = sampler.generate([[7, 8, 9]], n=4000)
        tokens, counts = np.unique([response.ids[0] for response in drawn], return_counts=True)
        common = int(tokens[counts.argmax()])
        batch = Batch(([7, 8, 9],), (([common],),), (0,))
        with torch.no_grad():
            probability = tiny_policy.logprobs(batch, temperature=0.5).logp_PKT.exp().item()
        assert counts.max() / 4000 == pytest.approx(probability, abs=4 * (probability / 4000) ** 0.5)

    def test_a_response_does_not_depend_on_what_shares_its_batch(self, tiny_policy: Policy) -> None:
        params = SamplingParams(max_new_tokens=20, temperature=0.8, top_k=40, top_p=0.9)
        together = Sampler(tiny_policy, params).generate(self.prompts, n=3, seed=1)
        for key, prompt in enumerate(self.prompts):
            (alone,) = Sampler(tiny_policy, params, tokens_per_batch=1).generate([prompt], n=3, seed=1, keys=[key])
            assert [response.ids for response in alone] == [response.ids for response in together[key]]

    def test_log_probabilities_are_those_the_trainer_computes(self, tiny_policy: Policy) -> None:
        params = SamplingParams(max_new_tokens=20, temperature=0.7, top_k=5)
        drawn = Sampler(tiny_policy, params).generate(self.prompts, n=3, seed=1)
        batch = Batch(self.prompts, tuple(tuple(response.ids for response in row) for row in drawn), (0, 1, 2))
        with torch.no_grad():
            logp_PKT = tiny_policy.logprobs(batch, temperature=0.7).logp_PKT
        for p, row in enumerate(drawn):
            for k, response in enumerate(row):
                expected = torch.tensor(response.logps)
                assert torch.allclose(logp_PKT[p, k, : len(response.ids)], expected, atol=1e-4)

    def test_shortest_length_and_top_k(self, tiny_policy: Policy) -> None:
        params = SamplingParams(max_new_tokens=30, min_new_tokens=30)
        for (response,) in Sampler(tiny_policy, params).generate(self.prompts):
            assert len(response.ids) == 30
            assert 2 not in response.ids[:-1]
        greedy = Sampler(tiny_policy, SamplingParams(temperature=0, max_new_tokens=9)).generate(self.prompts)
        top_1 = Sampler(tiny_policy, SamplingParams(top_k=1, max_new_tokens=9)).generate(self.prompts)
        assert [row[0].ids for row in greedy] == [row[0].ids for row in top_1]

    def test_stop_strings_end_a_response_and_stay_in_it(self, tiny_policy: Policy) -> None:
        tokenizer: Any = tiny_policy.tokenizer
        free = Sampler(tiny_policy, SamplingParams(max_new_tokens=30)).generate([[7, 8, 9]], n=8)[0]
        text = tokenizer.decode(free[0].ids[5:7])
        params = SamplingParams(max_new_tokens=30, stop_strings=(text,))
        stopped = Sampler(tiny_policy, params).generate([[7, 8, 9]], n=8)[0]
        assert any(len(a.ids) < len(b.ids) for a, b in zip(stopped, free, strict=True))
        for cut, whole in zip(stopped, free, strict=True):
            assert cut.ids == whole.ids[: len(cut.ids)]
            assert text not in tokenizer.decode(cut.ids[:-1])
            if len(cut.ids) < len(whole.ids):
                assert cut.finished
                assert tokenizer.decode(cut.ids).endswith(text) or text in tokenizer.decode(cut.ids)


def test_transformers_loop_draws_the_same(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model through both loops."""
    policy = tiny_policy
    params = SamplingParams(max_new_tokens=12)
    prompts = [[7, 8, 9], [10], [11, 12, 13, 14, 15]]
    ours = Sampler(policy, params).generate(prompts, n=2)
    monkeypatch.setattr("align.sampling.sampler.make_cache", lambda _: None)
    theirs = Sampler(policy, params).generate(prompts, n=2)
    for a, b in zip((r for row in ours for r in row), (r for row in theirs for r in row), strict=True):
        assert a.ids == b.ids
        assert a.finished == b.finished
        assert a.logps == pytest.approx(b.logps, abs=1e-4)


def test_recurrent_models_are_sampled_too(tiny_policy: Policy) -> None:
    policy = policy_of(HYBRID, "eager")
    policy.tokenizer = tiny_policy.tokenizer
    sampler = Sampler(policy, SamplingParams(max_new_tokens=6))
    drawn = sampler.generate([[7, 8, 9], [10]], n=2)
    assert list(sampler.stream([7, 8, 9])) == sampler.generate([[7, 8, 9]])[0]  # whole, once
    assert [len(row) for row in drawn] == [2, 2]
    assert all(0 < len(response.ids) <= 6 for row in drawn for response in row)


class ByHand:
    """Chooses by hand: a distribution with the end of the turn (2) far ahead of everything, then token 40."""

    def __init__(self, policy: Policy, **settings: Any) -> None:
        self.choose = TokenChoice(
            SamplingParams(temperature=0, max_new_tokens=8, **settings), policy.tokenizer, [2], [(0, 0)], 1
        )

    def tokens(self, likeliest: list[int]) -> list[int]:
        for first in likeliest:
            logits = torch.zeros(1, 262)
            logits[0, 40], logits[0, first] = 5.0, 9.0
            _, (ended,) = self.choose(logits, [0])
            if ended:
                break
        return self.choose.responses[0].ids


class TestShortestLength:
    @pytest.mark.parametrize("shortest", [0, 1, 2, 3, 5])
    def test_the_end_of_the_turn_is_the_last_of_the_shortest_length(self, shortest: int, tiny_policy: Policy) -> None:
        found = ByHand(tiny_policy, min_new_tokens=shortest).tokens([2] * 8)
        assert found == [40] * max(shortest - 1, 0) + [2]

    @pytest.mark.parametrize("shortest", [0, 1, 2, 3, 5])
    def test_a_stop_string_ends_no_response_before_it(self, shortest: int, tiny_policy: Policy) -> None:
        tokenizer: Any = tiny_policy.tokenizer
        found = ByHand(tiny_policy, min_new_tokens=shortest, stop_strings=(tokenizer.decode([50]),)).tokens([50] * 8)
        assert found == [50] * max(shortest, 1)


def test_entries_that_are_no_token_are_never_drawn(tiny_policy: Policy) -> None:
    """The vocabulary of 262 rounded up to 270, with everything on the last entries; also where ids have a gap."""
    size = len(tiny_policy.tokenizer)
    for params in (
        SamplingParams(max_new_tokens=2),
        SamplingParams(temperature=0, max_new_tokens=2),
        SamplingParams(temperature=0, diversity_penalty=1, max_new_tokens=2),
        SamplingParams(top_k=3, top_p=0.9, max_new_tokens=2),
    ):
        choose = TokenChoice(params, tiny_policy.tokenizer, [2], [(0, p) for p in range(20)], 1)
        logits = torch.zeros(20, size + 8)
        logits[:, size:] = 20.0
        chosen, _ = choose(logits, range(20))
        assert int(chosen.max()) < size
        expected = -torch.logsumexp(logits[0], 0).item()  # as the trainer computes it, over all entries
        assert [r.logps[0] for r in choose.responses] == pytest.approx([expected] * 20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9"),
        ({"stop_strings": ("",)}, "stop_strings"),
    ],
)
def test_wrong_parameters(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SamplingParams(**settings)


class TestBatches:
    @pytest.mark.parametrize(
        ("limit", "pads_left", "n", "parts"),
        [
            (24, True, 1, [[1, 0], [2]]),  # 1 + 8 and 3 + 8: two rows of 11 are 22, three of 13 are 39
            (22, True, 1, [[1, 0], [2]]),
            (21, True, 1, [[1], [0], [2]]),
            (39, True, 1, [[1, 0, 2]]),
            (38, True, 1, [[1, 0], [2]]),
            (77, True, 2, [[1, 0], [2]]),  # with two responses each all of it counts twice
            (78, True, 2, [[1, 0, 2]]),
            (1000, False, 1, [[1], [0], [2]]),
        ],
    )
    def test_prompts_and_longest_responses_are_within_the_limit(
        self, limit: int, pads_left: bool, n: int, parts: list[list[int]], tiny_policy: Policy
    ) -> None:
        tiny_policy.pads_left = pads_left
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=8), tokens_per_batch=limit)
        assert list(sampler._parts([3, 1, 5], n)) == parts  # pyright: ignore[reportPrivateUsage]

    def test_by_default_a_batch_has_32768_tokens(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=1))
        for length, parts in ((16383, 1), (16384, 2)):
            assert len(list(sampler._parts([length, length], 1))) == parts  # pyright: ignore[reportPrivateUsage]

    def test_between_is_called_before_each_batch_and_token_and_may_stop(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=2), tokens_per_batch=1)
        calls: list[int] = []
        sampler.generate([[7], [8], [9]], between=lambda: calls.append(0))
        assert len(calls) == 3 * (1 + 2)
        before = {name: p.detach().clone() for name, p in tiny_policy.model.named_parameters()}
        calls.clear()

        def stop() -> None:
            calls.append(0)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sampler.generate([[7], [8], [9]], between=stop)
        assert len(calls) == 2
        assert all(torch.equal(p, before[name]) for name, p in tiny_policy.model.named_parameters())

    def test_nothing_is_drawn_for_no_prompts(self, tiny_policy: Policy) -> None:
        assert Sampler(tiny_policy, SamplingParams()).generate([]) == []


class TestKeys:
    prompts = ([7, 8, 9], [10], [11, 12, 13, 14, 15])

    def drawn(self, policy: Policy, **settings: Any) -> list[list[list[int]]]:
        sampler = Sampler(policy, SamplingParams(max_new_tokens=6))
        return [[response.ids for response in row] for row in sampler.generate(self.prompts, n=2, **settings)]

    def test_a_prompt_is_known_by_its_key_wherever_it_stands(self, tiny_policy: Policy) -> None:
        """The default is its index; the batch sorts prompts by their length."""
        plain = self.drawn(tiny_policy)
        assert self.drawn(tiny_policy, keys=[0, 1, 2], seed=0) == plain
        other = self.drawn(tiny_policy, keys=[5, 1, 9])
        assert other[1] == plain[1]
        assert other[0] != plain[0]
        assert other[2] != plain[2]

    def test_responses_to_one_prompt_and_to_equal_prompts_differ(self, tiny_policy: Policy) -> None:
        sampler = Sampler(tiny_policy, SamplingParams(max_new_tokens=8))
        drawn = sampler.generate([[7, 8]] * 3, n=3)
        assert len({tuple(response.ids) for row in drawn for response in row}) == 9
        same = sampler.generate([[7, 8]] * 2, keys=[4, 4])
        assert same[0] == same[1]


def test_the_end_of_a_turn_and_of_a_sequence_both_end_a_response(tiny_policy: Policy) -> None:
    """A template may end a turn with another token than the tokenizer's end of sequence."""
    tokenizer: Any = tiny_policy.tokenizer
    assert Sampler(tiny_policy, SamplingParams()).stops == [2]
    other = tokenizer.__class__.from_pretrained(tokenizer.name_or_path)
    other.eos_token = "<|bos|>"
    tiny_policy.tokenizer = other
    assert Sampler(tiny_policy, SamplingParams()).stops == [1, 2]
