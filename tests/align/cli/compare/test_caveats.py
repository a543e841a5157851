"""The sentences that weaken a comparison, the gravest before the result itself."""

from __future__ import annotations

import json

import pytest

from align.cli.compare.outcome import conclude
from align.system.files import write_json
from tests.align.cli.compare.conftest import SCORES, Begin, N, measured, outcome, write


def test_a_judge_at_chance_is_said_before_all_else(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [float(i % 2), 0.5], "lengths": [3, 3]} for i in range(N)]
    found = outcome(begin_comparison("seeds=1", "judge=auto"), start=measured(0.0, 0, pairs=pairs))
    assert found["answer"][0].startswith("Do not choose by this comparison: its judge orders 50.0% (95 % interval ")
    assert found["answer"][1:3] == ["By these scores:", found["answer"][2]]
    assert found["answer"][2].startswith("Take dpo")
    assert any("of the held-out pairs as labelled, not shown to be better than chance" in s for s in found["caveats"])


def test_a_scorer_that_was_chosen_and_does_not_follow_the_labels_is_said_first_too(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [float(i % 2), 0.5], "lengths": [3, 3]} for i in range(N)]
    found = outcome(begin_comparison("seeds=1"), start=measured(0.0, 0, pairs=pairs))
    first = "These scores are what the judge (repetition) measures, not what your labels prefer: it orders 50.0% (95 % "
    assert found["answer"][0].startswith(first)
    assert any("both are equally long, so its taste for length is not known" in said for said in found["caveats"])


def test_a_judge_that_gives_all_the_same_score_is_said_first(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [2.0, 2.0], "lengths": [3, 9]} for i in range(N)]
    contents = {label: measured(score, 0, scores=[2.0] * N, pairs=pairs) for label, score in SCORES.items()}
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0] == (
        "Do not choose by this comparison: its judge (repetition) gives every answer the same score, 2; give another "
        "judge=."
    )
    assert any("with the same score for both responses in 100% of them" in said for said in found["caveats"])


def test_almost_the_same_score_for_all_is_said(begin_comparison: Begin) -> None:
    contents = {
        label: measured(score, 0, scores=[float(label == "dpo"), *[0.0] * (N - 1)], pairs=None)
        for label, score in SCORES.items()
    }
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0] == "The judge (repetition) gives 99% of all answers the same score, 0."


def test_answers_that_are_all_cut_off_are_said_before_the_result(begin_comparison: Begin) -> None:
    contents = {label: measured(score, 0, lengths=[16] * N) for label, score in SCORES.items()}
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0].startswith("Nearly all answers of every model are cut off at 16 tokens")
    assert "all answers are equally long here" in found["facts"]["At equal length"]


def test_what_a_reward_model_costs_beside_the_budget_is_said(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "budget=tokens:80", "methods=[sft,ppo]")
    for label, score in (("start", 0.0), ("sft", 0.2), ("ppo", 0.5)):
        write(stages, label, 0, measured(score, 0))
    write(stages, "sft", 0, measured(0.3, 0), name="reward-seed0")
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    said = "The budget of 80 tokens does not count the reward model, which was trained on 100 tokens for ppo."
    assert said in found["caveats"]
    assert found["facts"]["Budget"] == "80 tokens for each run; the reward model that ppo asks is trained beside it"
    missed = "Whole steps do not meet the budget of 80 tokens exactly: sft 100, ppo 100 tokens trained on."
    assert missed in found["caveats"]
    assert "200, 100 of them its reward model" in (stages.contest.folder / "comparison.html").read_text()
    assert any(said.endswith("counts in favour of it.") for said in found["caveats"]) == (stages.contest.judge is None)
    assert any(said.startswith("ppo: trained on answers of at most 64 tokens, judged") for said in found["caveats"])


@pytest.mark.parametrize(("minutes", "missed"), [("0.17", False), ("0.21", False), ("0.3", True), ("0.1", True)])
def test_minutes_that_were_not_kept_are_said(minutes: str, missed: bool, begin_comparison: Begin) -> None:
    """Each run took 10 seconds."""
    stages = begin_comparison("seeds=1", f"budget=minutes:{minutes}")
    for label, score in SCORES.items():
        write(stages, label, 0, measured(score, 0))
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    begin = f"The budget of {minutes} minutes was not met, since a start takes time and speed varies: sft 0.167, "
    assert any(said.startswith(begin) and said.endswith(" minutes.") for said in found["caveats"]) == missed


@pytest.mark.parametrize(("low", "warned"), [(0.48, True), (0.52, False)])
def test_a_reward_model_at_chance_is_said_first(low: float, warned: bool, begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "methods=[sft,ppo]")
    for label, score in (("start", 0.0), ("sft", 0.2), ("ppo", 0.1)):
        write(stages, label, 0, measured(score, 0))
    accuracy = {"mean": 0.55, "low": low, "high": 0.6, "n": 400, "runs": 1}
    folder = stages.contest.folder / "runs" / "reward-seed0"
    folder.mkdir()
    write_json(folder / "evaluation.json", {"intervals": {"accuracy": {"after": accuracy}}})
    write(stages, "sft", 0, measured(0.3, 0), name="reward-seed0")
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert found["facts"]["Reward model"].endswith("for ppo; held-out pairs ordered right: 55.0% of 400 with seed 0")
    assert found["answer"][0].startswith("ppo: rewarded by a reward model of the training pairs, which") == warned


def test_what_weakens_it_is_said(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1")
    cut = measured(0.5, 0, lengths=[16] * 36 + [8] * 4)
    long = stages.contest.folder / "runs" / "dpo-seed0"
    for label, score in SCORES.items():
        write(stages, label, 0, cut if label == "dpo" else measured(score, 0))
    (long / "metrics.jsonl").write_text(json.dumps({"step": 1, "train/epoch": 0.25, "train/tokens": 900.0}) + "\n")
    conclude(stages)
    said = json.loads((stages.contest.folder / "comparison.json").read_text())["caveats"]
    assert any(s.startswith("One training run of each method") for s in said)
    assert any(s.startswith("Budgets differ") and "from 100 tokens trained on (sft) to 900 (dpo)" in s for s in said)
    assert any("limit of 16 tokens" in s and "dpo 90%" in s and "sft" not in s for s in said)
    assert any(s.startswith("Trained for a short time: sft 1 step; dpo 1 step, 0.25 of an epoch.") for s in said)
    assert any("goes from 1 (icl) to 5 nats (dpo)" in s and "cannot be read" in s for s in said)
    assert any("by the methods themselves (icl 100.0%, sft 100.0%, dpo 100.0%; 40 of the 40 fit)" in s for s in said)
    assert any(s.startswith("No setting was tuned") for s in said)
    assert not any("trained on answers of at most" in s for s in said)  # none of these draws answers to learn from


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("sft,dpo", "Settings tuned for this model are shipped for dpo; the others have their defaults"),
        ("dpo,dpo:loss_type=ipo", "Every method has the settings shipped for this model"),
    ],
)
def test_settings_that_are_shipped_for_a_model_are_named(methods: str, said: str, begin_comparison: Begin) -> None:
    stages = begin_comparison(f"methods=[{methods}]", "seeds=1", "model=world", "judge=repetition")
    for contender in stages.contest.comparison.contenders:
        write(stages, contender.label, 0, measured(0.5, 0))
    write(stages, "start", 0, measured(0.4, 0))
    conclude(stages)
    result = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert any(s.startswith(said) for s in result["caveats"])
