"""Diverse beam search: what a plain reimplementation finds, alone and in batches, through both decode loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.model.policy import Policy
from align.sampling.diverse_beam import diverse_tokens
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from tests.align.model.test_tree_layout import policy_of
from tests.align.sampling.test_decode_loop import HYBRID

PROMPTS = ([7, 8, 9], [10], [11, 12, 13, 14, 15])
GROUPS, LONGEST = 4, 12


def searcher(policy: Policy, penalty: float, **settings: Any) -> Sampler:
    """Every third token ends a response, so that groups end at different steps."""
    params = SamplingParams(temperature=0, max_new_tokens=LONGEST, diversity_penalty=penalty, **settings)
    sampler = Sampler(policy, params)
    sampler.stops = list(range(2, 262, 3))
    return sampler


def found(sampler: Sampler, prompts: Any = PROMPTS) -> list[list[list[int]]]:
    return [[response.ids for response in row] for row in sampler.generate(prompts, n=GROUPS)]


def search(policy: Policy, prompt: list[int], penalty: float, stops: list[int]) -> list[list[int]]:
    """The paper's algorithm with B = G: no cache, no padding, no batch; one forward for each choice."""
    beams: list[list[int]] = [[] for _ in range(GROUPS)]
    for _ in range(LONGEST):
        taken: Counter[int] = Counter()
        for beam in beams:
            if beam and beam[-1] in stops:
                continue
            with torch.no_grad():
                logp = policy.model(torch.tensor([[*prompt, *beam]])).logits[0, -1].log_softmax(-1).tolist()
            scores = [logp[token] - penalty * taken[token] for token in range(len(logp))]
            beam.append(scores.index(max(scores)))
            taken[beam[-1]] += 1
    return beams


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (0.0, [0, 0, 0, 0]),
        (0.4, [0, 0, 1, 0]),  # 2, 1.5, 0 | 1.6, 1.5, 0 | 1.2, 1.5, 0 | 1.2, 1.1, 0
        (1.0, [0, 1, 0, 1]),  # 2, 1.5, 0 | 1, 1.5, 0 | 1, 0.5, 0 | 0, 0.5, 0
        (9.0, [0, 1, 2, 0]),  # 2, 1.5, 0 | -7, 1.5, 0 | -7, -7.5, 0 | -7, -7.5, -9
    ],
)
def test_four_groups_by_hand(penalty: float, expected: list[int]) -> None:
    logits = torch.tensor([[2.0, 1.5, 0.0]] * 4)
    assert diverse_tokens(logits, [0, 1, 2, 3], 4, penalty).tolist() == expected


def test_only_groups_of_the_same_prompt_that_go_on_repel_in_their_order_whatever_the_rows() -> None:
    logits = torch.tensor([[2.2, 3.0, 2.5]] * 5)
    # Prompt 0 has groups 1 and 2 left, prompt 2 has 0, 1 and 2; prompt 1 has ended.
    assert diverse_tokens(logits, [8, 1, 6, 2, 7], 3, 1.0).tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("penalty", [0.1, 0.5, 1.0, 3.0, 100.0])
def test_what_the_plain_search_finds(penalty: float, tiny_policy: Policy) -> None:
    sampler = searcher(tiny_policy, penalty)
    responses = found(sampler)
    assert responses == [search(tiny_policy, list(prompt), penalty, sampler.stops) for prompt in PROMPTS]
    lengths = {len(ids) for row in responses for ids in row}
    assert len(lengths) > 2
    assert all(response.finished == (response.ids[-1] in sampler.stops) for response in sampler.generate([[7]], n=3)[0])


def test_transformers_loop_and_recurrent_models_search_the_same(
    tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = found(searcher(tiny_policy, 1.0))
    monkeypatch.setattr("align.sampling.sampler.make_cache", lambda _: None)
    assert found(searcher(tiny_policy, 1.0)) == ours
    monkeypatch.undo()
    recurrent = policy_of(HYBRID, "eager")
    recurrent.tokenizer = tiny_policy.tokenizer
    sampler = searcher(recurrent, 1.0)
    assert found(sampler, [[7, 8, 9]]) == [search(recurrent, [7, 8, 9], 1.0, sampler.stops)]


def test_the_first_group_is_greedy_decoding_and_without_a_penalty_all_are(tiny_policy: Policy) -> None:
    model: Any = tiny_policy.model.eval()
    for prompt, plain, diverse in zip(
        PROMPTS, found(searcher(tiny_policy, 0.0)), found(searcher(tiny_policy, 5.0)), strict=True
    ):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=LONGEST,
            eos_token_id=searcher(tiny_policy, 0.0).stops,
            pad_token_id=0,
        )
        greedy = out[0, len(prompt) :].tolist()
        assert plain == [greedy] * GROUPS
        assert diverse[0] == greedy
        assert all(ids != greedy for ids in diverse[1:])


def test_the_batch_its_order_and_the_seed_change_nothing(tiny_policy: Policy) -> None:
    together = found(searcher(tiny_policy, 1.0))
    assert found(searcher(tiny_policy, 1.0), PROMPTS[::-1]) == together[::-1]
    single = searcher(tiny_policy, 1.0)
    single.tokens_per_batch = 1
    assert found(single) == together
    seeded = single.generate(PROMPTS, n=GROUPS, seed=5, keys=[30, 20, 10])
    assert [[response.ids for response in row] for row in seeded] == together


def test_a_larger_penalty_makes_them_differ_more(tiny_policy: Policy) -> None:
    def distinct(penalty: float) -> int:
        return sum(len({tuple(ids) for ids in row}) for row in found(searcher(tiny_policy, penalty)))

    counts = [distinct(penalty) for penalty in (0.0, 0.02, 0.1, 100.0)]
    assert counts == sorted(counts)
    assert counts[0] == len(PROMPTS) < counts[1] < counts[-1] == GROUPS * len(PROMPTS)
    firsts = [[ids[0] for ids in row] for row in found(searcher(tiny_policy, 100.0))]
    assert all(len(set(row)) == GROUPS for row in firsts)


def test_shortest_length_and_log_probabilities_are_the_samplers(tiny_policy: Policy) -> None:
    sampler = searcher(tiny_policy, 1.0, min_new_tokens=LONGEST)
    for prompt, row in zip(PROMPTS, sampler.generate(PROMPTS, n=GROUPS), strict=True):
        for response in row:
            assert len(response.ids) == LONGEST
            assert not set(response.ids[:-1]) & set(sampler.stops)
            with torch.no_grad():
                logits = tiny_policy.model(torch.tensor([[*prompt, *response.ids]])).logits[0]
            logps = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response.ids)[:, None])[:, 0]
            assert response.logps == pytest.approx(logps.tolist(), abs=1e-4)  # the model's own, without the penalty


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.8}, {"temperature": 0, "top_k": 40}, {"temperature": 0, "top_p": 0.9}]
)
def test_what_is_random_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"diversity_penalty=1\.0 applies only to diverse beam search.*set temperature=0, top_k=0"
    ):
        SamplingParams(diversity_penalty=1.0, **settings)


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_penalties_that_cannot_be(penalty: float) -> None:
    with pytest.raises(UserError, match=r"diversity_penalty=.*must be at least 0, and finite"):
        SamplingParams(temperature=0, diversity_penalty=penalty)
