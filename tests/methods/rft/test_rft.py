"""RFT: the rows and counts that samples become, and that it trains on them as SFT does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.candidates.drawing import draw
from align.candidates.plan import Pool
from align.data import Preferences
from align.data.examples import tokenize
from align.errors import UserError
from align.model.batch import Batch
from align.model.policy import Policy
from methods import RFT, RRHF, SFT, SLiC
from methods.rft.rft import BestResponses, RightPaths
from reward import Length
from tests.methods.rft.test_rejection import SEVEN

DEMONSTRATION = "Three and four: <<3+4=7>>7\n#### 7"


def pool(texts: list[str], times: list[int] | None = None, scores: list[float] | None = None, **row: Any) -> Pool:
    chosen = [{"role": None, "content": row.pop("chosen", DEMONSTRATION)}]
    given = {"chosen": chosen, "answer": "7", "prompt_id": "q1", **row}
    return Pool([given], texts, times or [1] * len(texts), scores)


class TestRightPaths:
    def test_the_seven_strings_join_the_demonstration(self) -> None:
        selected = RightPaths()(pool(SEVEN))
        assert [row["chosen"] for row in selected.rows] == [DEMONSTRATION, *(SEVEN[i] for i in (2, 1, 4, 5, 6))]
        assert all(row["rejected"] is None for row in selected.rows)
        assert selected.counts == {
            "kept": 5,
            "duplicate": 1,
            "wrong_equation": 1,
            "questions_without_right_sample": 0,
            "paths": 5,
            "paths_with_demonstration": 5,  # 3+4=7 is one of the samples'
            "demonstrations": 1,
        }

    def test_as_the_authors_filter(self) -> None:
        selected = RightPaths(strict_reference=True, demonstrations=False)(pool(SEVEN))
        assert [row["chosen"] for row in selected.rows] == [SEVEN[i] for i in (2, 1, 4)]
        assert selected.counts["paths"] == 3

    def test_without_deduplication_every_right_sample_counts(self) -> None:
        selected = RightPaths(demonstrations=False, deduplicate=False)(pool(SEVEN[:4], [3, 1, 2, 1]))
        assert [row["chosen"] for row in selected.rows] == [*[SEVEN[0]] * 3, SEVEN[1], *[SEVEN[2]] * 2]
        assert selected.counts["duplicate"] == 1 + 3  # of the equations; of the texts

    def test_a_question_without_a_right_sample_keeps_its_demonstration(self) -> None:
        selected = RightPaths()(pool(["#### 8", "no idea"]))
        assert [row["chosen"] for row in selected.rows] == [DEMONSTRATION]
        assert selected.counts["questions_without_right_sample"] == 1
        assert selected.counts["wrong_answer"] == selected.counts["no_answer"] == 1
        assert selected.counts["paths"] == 0
        assert not RightPaths(demonstrations=False)(pool(["#### 8"])).rows
        assert not RightPaths()(pool([])).counts["paths"]

    def test_the_demonstration_is_not_trained_on_twice(self) -> None:
        selected = RightPaths()(pool([DEMONSTRATION, SEVEN[1]]))
        assert [row["chosen"] for row in selected.rows] == [DEMONSTRATION, SEVEN[1]]

    @pytest.mark.parametrize("blanks", [" {}", "{}\n", "\n\n{} \n"])
    def test_nor_is_one_that_differs_in_blanks(self, blanks: str) -> None:
        """A drawn response has none around it."""
        written = blanks.format(DEMONSTRATION)
        for selected in (
            RightPaths()(pool([DEMONSTRATION], chosen=written)),
            BestResponses()(pool([DEMONSTRATION], scores=[1.0], chosen=written)),
        ):
            assert [row["chosen"] for row in selected.rows] == [DEMONSTRATION]

    @pytest.mark.parametrize("answer", [None, ""])
    def test_an_answer_that_is_missing_is_named(self, answer: str | None) -> None:
        with pytest.raises(UserError, match=r"method\.select=answer: prompt 'q1' has no answer"):
            RightPaths()(pool(SEVEN, answer=answer))


class TestBestResponses:
    def test_best_and_threshold(self) -> None:
        four = pool(["a", "b", "c", "d"], [1, 1, 2, 1], [0.1, 0.9, 0.5, 0.9])
        best = BestResponses()(four)
        assert [(row["chosen"], row["chosen_score"]) for row in best.rows] == [(DEMONSTRATION, None), ("b", 0.9)]
        assert best.counts == {
            "kept": 1,
            "not_best": 3,
            "duplicate": 1,
            "prompts_without_response": 0,
            "demonstrations": 1,
        }
        above = BestResponses(demonstrations=False, best=None, threshold=0.5)(four)
        assert [(row["chosen"], row["chosen_score"]) for row in above.rows] == [("b", 0.9), ("d", 0.9), ("c", 0.5)]
        assert "demonstrations" not in above.counts
        none = BestResponses(demonstrations=False, threshold=1.0)(four)
        assert not none.rows
        assert none.counts["prompts_without_response"] == 1

    def test_a_response_that_only_the_data_has_takes_none_from_the_duplicates(self) -> None:
        drawn = pool(["a", "b", "c"], [3, 1, 0], [0.1, 0.5, 0.9])
        assert BestResponses()(drawn).counts["duplicate"] == 2  # a, twice again


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "method.samples=0: RFT draws at least 1"),
        ({"select": "luck"}, "select must be score or answer, not 'luck'"),
        ({"best": None}, "method.best=null: give method.threshold"),
        ({"best": 0}, "method.best=0"),
        ({"select": "answer", "include_data": True}, "method.include_data=true"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 0.0}, "method.temperature=0: all samples"),
        ({"reduction": "sum"}, "reduction must be token_mean, sequence_mean or sequence_sum, not 'sum'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RFT(**settings)


@pytest.mark.parametrize("method", [RRHF, SLiC])
def test_settings_of_rankings_that_cannot_be(method: Any) -> None:
    for settings, message in (
        ({"samples": -1}, "method.samples=-1"),
        ({"samples": 1, "include_data": False}, "method.samples=1: a comparison needs two"),
        ({"samples": 4, "temperature": 0.0}, "method.temperature=0: all samples"),
        ({"samples": 4, "top_p": 0.0}, "top_p"),
        (
            {"samples": 4, "diversity_penalty": 1.0},
            "diversity_penalty=1.0 applies only to diverse beam search.*temperature=0",
        ),
        ({"sources": ("a",)}, "method.sources=.* has no effect without method.samples"),
    ):
        with pytest.raises(UserError, match=message):
            method(**settings)


@pytest.mark.parametrize("method", [RRHF, SLiC, RFT])
def test_diverse_beams_and_sources_are_part_of_the_plan(method: Any) -> None:
    beams = {"temperature": 0.0, "top_k": 0, "diversity_penalty": 1.0}
    plan = method(samples=4, sources=("a", "b"), **beams).candidates
    assert (plan.samples, plan.sources) == (4, ("a", "b"))
    assert {name: getattr(plan.sampling, name) for name in beams} == beams
    assert method(samples=1, sources=("a",)).candidates.samples == 1  # two responses where there are two models


def test_iterating_needs_candidates() -> None:
    with pytest.raises(UserError, match=r"method\.rounds=2"):
        RRHF(rounds=2)
    plan = RRHF(rounds=3, samples=4).candidates
    assert plan is not None
    assert (plan.rounds, plan.samples, plan.include_data, plan.sampling.temperature) == (3, 4, True, 0.8)


def test_what_methods_draw_by_default() -> None:
    assert RRHF().candidates is None
    assert SLiC().candidates is None
    slic = SLiC(samples=8).candidates
    assert slic is not None
    assert (slic.sampling.temperature, slic.sampling.top_k, slic.include_data) == (0.7, 40, False)
    plan = RFT().candidates
    assert (plan.scored, plan.from_base) == (True, True)
    assert isinstance(plan.select, BestResponses)
    verified = RFT(select="answer", deduplicate=False).candidates
    assert not verified.scored
    assert verified.select == RightPaths(deduplicate=False)


def test_it_trains_as_sft(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy()
    rows = [{"prompt": "the cat", "chosen": "sat on the mat"}, {"prompt": "a dog", "chosen": "ran"}]
    tokenized = tokenize(Preferences.from_rows(rows), policy.tokenizer, max_length=64, unit=RFT().unit)
    batch = Batch.from_examples(tokenized)
    ours, theirs = RFT().loss(policy, batch).sums["policy"], SFT().loss(policy, batch).sums["policy"]
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-7)
    assert RFT().weight(batch) == SFT().weight(batch) > 0


@pytest.mark.parametrize("method", [RFT(), RRHF(samples=4)])
def test_the_report_has_what_became_of_the_samples(method: Any, tmp_path: Path, make_policy: Any) -> None:
    policy = make_policy()
    file = tmp_path / "c.jsonl"
    file.write_text('{"prompt": "the cat", "chosen": "sees", "rejected": "hears"}\n')
    train = tokenize(Preferences.load(file), policy.tokenizer, max_length=64, unit=method.unit)
    assert method.report(policy, train, None, None) == {}
    counts = {"prompts": 2, "kept": 3, "scored": 4, "scored_prompts": 2, "reward_sum": 2.0, "reward_best_sum": 3.0}
    file.with_suffix(".json").write_text(json.dumps({"counts": counts}))
    report = method.report(policy, train, None, None)["candidates"]
    assert (report["kept"], report["reward_mean"], report["reward_best"]) == (3, 0.5, 1.5)


def test_every_demonstration_of_a_prompt_is_trained_on_whole() -> None:
    """D ∪ D′: those of all rows of the prompt, each once, and thoughts are part of one."""
    first, second = ({"role": "assistant", "content": text} for text in ("One.", "Two."))
    thought = {"role": "assistant", "content": "One.", "thinking": "Hm."}
    rows: list[dict[str, Any]] = [
        {"chosen": [message], "answer": "7", "prompt_id": "q"} for message in (first, second, first, thought)
    ]
    rows.append({"chosen": None, "answer": "8", "prompt_id": "q"})
    selected = BestResponses()(Pool(rows, ["Two.", "Best."], [1, 1], [0.0, 1.0]))
    assert [row["chosen"] for row in selected.rows] == ["One.", "Two.", [thought], "Best."]
    indented = Pool([{"chosen": [{"role": None, "content": "    return 1\n"}]}], ["Best."], [1], [1.0])
    assert [row["chosen"] for row in BestResponses()(indented).rows] == ["    return 1\n", "Best."]
    assert selected.counts["demonstrations"] == 3
    assert RightPaths()(Pool(rows, ["#### 7"], [1], None)).counts["questions_with_several_answers"] == 1
    assert "questions_with_several_answers" not in RightPaths()(Pool(rows[:4], ["#### 7"], [1], None)).counts


def test_a_demonstration_with_thoughts_is_drawn_beside(tiny_policy: Policy, tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "How much?"}]
    answer = {"role": "assistant", "content": "Seven."}
    answers = (answer, {**answer, "reasoning_content": "Three and four."})
    rows = [{"prompt": prompt, "chosen": [message]} for message in answers]
    plan = RFT(samples=2, max_new_tokens=4, keep_unfinished=True).candidates
    assert plan is not None
    drawn = draw(tiny_policy, Preferences.from_rows(rows), plan, tmp_path / "drawn.jsonl", scorer=Length(maximum=3))
    chosen = [row["chosen"][0] for row in drawn]
    assert [message.get("thinking") for message in chosen if message["content"] == "Seven."] == [
        None,
        "Three and four.",
    ]
    assert len(chosen) == 3
