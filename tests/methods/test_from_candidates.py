"""Every setting of the drawing reaches the plan of each method that learns from candidates."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from align.candidates.plan import CandidatePlan, Ranking
from align.errors import UserError
from align.sampling.params import SamplingParams
from methods import BCO, CPO, DPO, KTO, ORPO, RFT, RRHF, SimPO, SLiC
from methods.picked_pairs import AllPairs, BestWorst, RejectionSampled
from methods.rft.rft import BestResponses, RightPaths

REFERRING = (DPO, KTO, BCO)
PAIRING = (*REFERRING, SimPO, ORPO, CPO)
METHODS = (RRHF, SLiC, RFT, *PAIRING)
SAMPLING = {"temperature": 0.25, "top_k": 3, "top_p": 0.5, "max_new_tokens": 7}
PLAN = {"samples": 5, "rounds": 3, "sources": ("a", "b"), "include_data": True, "keep_unfinished": True}


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize("include_data", [False, True])
def test_every_setting_reaches_the_plan(cls: Any, include_data: bool) -> None:
    plan = cls(**{**SAMPLING, **PLAN, "include_data": include_data}).candidates
    assert plan.sampling == SamplingParams(**SAMPLING)  # pyright: ignore[reportArgumentType]
    assert {name: getattr(plan, name) for name in PLAN} == {**PLAN, "include_data": include_data}
    assert plan.scored
    assert not plan.update_reference


@pytest.mark.parametrize("cls", METHODS)
def test_beams_reach_the_plan(cls: Any) -> None:
    plan = cls(samples=2, temperature=0.0, top_k=0, diversity_penalty=0.5).candidates
    assert plan.sampling.diversity_penalty == 0.5


# temperature, top k, top p, longest, unfinished ones, the data's own
DEFAULTS: dict[type[Any], tuple[Any, ...]] = {
    RRHF: (0.8, 0, 1.0, 64, False, True),
    SLiC: (0.7, 40, 1.0, 64, False, False),
    **dict.fromkeys((RFT, *PAIRING), (0.7, 0, 1.0, 64, False, False)),
}


@pytest.mark.parametrize("cls", METHODS)
def test_the_plan_by_default(cls: Any) -> None:
    plan: CandidatePlan = cls(samples=4).candidates
    drawn = plan.sampling
    assert (drawn.temperature, drawn.top_k, drawn.top_p, drawn.max_new_tokens) == DEFAULTS[cls][:4]
    assert (plan.keep_unfinished, plan.include_data) == DEFAULTS[cls][4:]
    assert (plan.samples, plan.sources, plan.rounds, plan.scored) == (4, (), 1, True)
    assert plan.from_base is (cls is RFT)
    rows = BestResponses(True, 1, None) if cls is RFT else BestWorst() if cls in PAIRING else Ranking()
    assert plan.select == rows
    assert cls().samples == (8 if cls is RFT else 0)


@pytest.mark.parametrize(
    ("cls", "settings", "selection"),
    [
        (RFT, {"demonstrations": False}, BestResponses(False, 1, None)),
        (RFT, {"best": 3}, BestResponses(True, 3, None)),
        (RFT, {"best": None, "threshold": 0.5}, BestResponses(True, None, 0.5)),
        (RFT, {"threshold": -1.0}, BestResponses(True, 1, -1.0)),
        (RFT, {"select": "answer"}, RightPaths(True, False, True)),
        (RFT, {"select": "answer", "demonstrations": False}, RightPaths(False, False, True)),
        (RFT, {"select": "answer", "strict_reference": True}, RightPaths(True, True, True)),
        (RFT, {"select": "answer", "deduplicate": False}, RightPaths(True, False, False)),
    ],
)
def test_every_setting_of_the_selection_reaches_it(cls: Any, settings: dict[str, Any], selection: Any) -> None:
    method = cls(**settings)
    assert method.candidates.select == selection
    assert method.candidates.scored is method.needs_reward is (method.select == "score")


@pytest.mark.parametrize("cls", METHODS)
def test_two_samples_without_chance_would_be_the_same(cls: Any) -> None:
    with pytest.raises(UserError, match=r"method\.temperature=0: all samples of a prompt would be the same"):
        cls(samples=2, temperature=0.0, top_k=0)
    alone = {"samples": 1, "temperature": 0.0, "top_k": 0}
    assert cls(**alone, **({} if cls is RFT else {"include_data": True})).candidates.samples == 1


@pytest.mark.parametrize("cls", [RRHF, SLiC, *PAIRING])
def test_a_ranking_of_one_sample_needs_something_to_compare_it_with(cls: Any) -> None:
    with pytest.raises(UserError, match=r"method\.samples=1: a comparison needs two responses"):
        cls(samples=1, include_data=False)
    for settings in ({"include_data": True}, {"include_data": False, "sources": ("a",)}):
        assert cls(samples=1, **settings).candidates.samples == 1
    assert cls(samples=2, include_data=False).candidates.samples == 2


@pytest.mark.parametrize("cls", METHODS)
def test_rounds_need_samples_and_are_at_least_one(cls: Any) -> None:
    for rounds in (0, -1):
        with pytest.raises(UserError, match=rf"method\.rounds={rounds}: must be at least 1"):
            cls(rounds=rounds, samples=4)
    if cls is not RFT:  # which always draws
        with pytest.raises(UserError, match=r"method\.rounds=2 has no effect without method\.samples"):
            cls(rounds=2)
        assert cls(rounds=1).candidates is None
        assert not cls().needs_reward
    assert dataclasses.replace(cls(samples=4), rounds=3).candidates.rounds == 3  # pyright: ignore
    assert cls(samples=4).needs_reward


@pytest.mark.parametrize("cls", PAIRING)
def test_the_pairs_that_are_picked(cls: Any) -> None:
    assert cls(samples=4, pick="all").candidates.select == AllPairs()
    assert cls(samples=8, pick="rso").candidates.select == RejectionSampled(0.5, 4)
    assert cls(samples=2, sources=("a",), pick="rso", rso_beta=2, rso_accepted=2).candidates.select == (
        RejectionSampled(2.0, 2)
    )


@pytest.mark.parametrize("cls", PAIRING)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pick": "all"}, "method.pick=all has no effect without method.samples"),
        ({"samples": 4, "rso_beta": 1.0}, "method.rso_beta=1.0 has no effect without method.pick=rso"),
        ({"samples": 4, "rso_accepted": 2}, "method.rso_accepted=2 has no effect without method.pick=rso"),
        ({"samples": 8, "pick": "rso", "rso_beta": 0.0}, "method.rso_beta=0.0: RSO needs a finite number above 0"),
        *(
            ({"samples": 8, "pick": "rso", "rso_accepted": n}, f"method.rso_accepted={n} of 8 samples: must be an even")
            for n in (0, 3, 8, 10)
        ),
        ({"samples": 8, "pick": "rso", "include_data": True}, "leave method.include_data=true out"),
    ],
)
def test_picks_that_cannot_be(cls: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        cls(**settings)


@pytest.mark.parametrize("cls", REFERRING)
def test_the_reference_of_a_round(cls: Any) -> None:
    assert cls(samples=4, rounds=2, update_reference=True).candidates.update_reference
    with pytest.raises(UserError, match=r"method\.update_reference=true has no effect without method\.rounds above 1"):
        cls(samples=4, update_reference=True)
