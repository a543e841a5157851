"""The rows that a pool of candidates becomes: the whole ranking survives, ties stay ties."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.candidates.plan import CandidatePlan, Pool, Ranking, told_of_candidates
from align.sampling.params import SamplingParams


class TestRanking:
    def test_ties_and_order_by_hand(self) -> None:
        pool = Pool([{}], ["low", "best", "middle", "also best", "also low"], [1] * 5, [0.0, 2.0, 1.0, 2.0, 0.0])
        selected = Ranking()(pool)
        assert [(row["chosen"], row["rejected"]) for row in selected.rows] == [
            ("best", "middle"),
            ("also best", "middle"),
            ("middle", "low"),
            ("middle", "also low"),
        ]
        assert selected.counts == {"ranked": 1}

    @pytest.mark.parametrize(
        ("scores", "counts"), [([1.0, 1.0, 1.0], {"tied": 1}), ([1.0], {"single": 1}), ([], {"single": 1})]
    )
    def test_what_cannot_be_ranked_has_no_rows(self, scores: list[float], counts: dict[str, int]) -> None:
        selected = Ranking()(Pool([{}], [f"text {i}" for i in range(len(scores))], [1] * len(scores), scores))
        assert selected.rows == []
        assert selected.counts == counts

    @given(st.lists(st.integers(0, 3), min_size=2, max_size=9))
    def test_every_comparison_is_put_together_again(self, scores: list[int]) -> None:
        from align.data.pairs_and_rankings import draft

        texts = [f"text {i}" for i in range(len(scores))]
        rows = Ranking()(Pool([{}], texts, [1] * len(texts), [float(s) for s in scores])).rows
        if len(set(scores)) < 2:
            assert not rows
            return
        assert len(rows) <= len(texts)
        full = [dict.fromkeys(("prompt", "tools", "ranking", "margin", "weight")) | dict(row) for row in rows]
        for row in full:
            row |= {side: [{"role": None, "content": row[side]}] for side in ("chosen", "rejected")}
        example = draft(full, "ranking")
        contents = [response["content"] for response in example.responses]
        found = {(contents[i], contents[j]) for i, j in example.comparisons}
        wanted = {
            (texts[i], texts[j]) for i, j in itertools.permutations(range(len(texts)), 2) if scores[i] > scores[j]
        }
        assert found == wanted


def test_a_pair_has_the_scores_of_its_sides() -> None:
    pool = Pool([{"prompt_id": "p"}], ["a", "b", "c", "d"], [1, 1, 0, 2], [1.0, 3.0, 2.0, 1.0])
    assert Ranking()(pool).rows == [
        {"chosen": "b", "rejected": "c", "chosen_score": 3.0, "rejected_score": 2.0, "ranking": "p"},
        {"chosen": "c", "rejected": "a", "chosen_score": 2.0, "rejected_score": 1.0, "ranking": "p"},
        {"chosen": "c", "rejected": "d", "chosen_score": 2.0, "rejected_score": 1.0, "ranking": "p"},
    ]


def test_two_levels_are_paired_through_their_first_ones() -> None:
    pool = Pool([{}], ["a", "b", "c", "d"], [1] * 4, [0.5, -1.0, 0.5, -1.0])
    rows = Ranking()(pool).rows
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("a", "b"), ("c", "b"), ("a", "d")]
    assert {(row["chosen_score"], row["rejected_score"]) for row in rows} == {(0.5, -1.0)}


def test_defaults_of_a_plan() -> None:
    plan = CandidatePlan(samples=2, sampling=SamplingParams())
    assert (plan.sources, plan.include_data, plan.keep_unfinished, plan.scored) == ((), True, False, True)
    assert (plan.select, plan.rounds, plan.from_base) == (Ranking(), 1, False)


def test_a_drawing_is_told_in_sentences() -> None:
    counts = {"left_out": 2, "drawn": 28, "tokens": 1500, "unfinished": 20, "unusable": 1, "prompts": 7, "distinct": 6}
    scores = {
        "rows": 5,
        "scored": 6,
        "scored_prompts": 4,
        "reward_mean": 0.25,
        "reward_best": 0.5,
        "right_answers": 1234567,
    }
    plan = CandidatePlan(samples=4, sampling=SamplingParams(max_new_tokens=64))
    assert told_of_candidates({**counts, **scores}, plan) == [
        "28 responses to 7 prompts (1,500 tokens), 6 distinct; 2 prompts were too long; 20 were cut off at 64 tokens "
        "and left out; 1 were empty or unusable",
        "Reward 0.250 on average, 0.500 the best of a prompt",
        "right answers 1,234,567",
        "Warning: 71% of the responses had no end within 64 tokens; raise method.max_new_tokens, or keep them with "
        "method.keep_unfinished=true.",
    ]
    assert told_of_candidates({"drawn": 4, "prompts": 1, "distinct": 4, "tokens": 9}, plan) == [
        "4 responses to 1 prompts (9 tokens), 4 distinct"
    ]
