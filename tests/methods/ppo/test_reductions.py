"""Relatives of GRPO under their own names: numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.model.batch import Batch
from align.model.forward import Logprobs
from align.runs.tracker import read_records
from methods import CISPO, DAPO, GRPO, GSPO, PPO, RLOO, DrGRPO, OnlineDPO, ReinforcePP
from methods.ppo.advantages import spread

LONGEST = 4


class Asked:
    """A policy with given log-probabilities."""

    device = "cpu"
    role = "policy"

    def __init__(self, logp_PKT: torch.Tensor) -> None:
        self.logp_PKT = logp_PKT.requires_grad_()

    def logprobs(self, *_: Any, **__: Any) -> Logprobs:
        return Logprobs(self.logp_PKT)


def two_answers(advantages: tuple[float, float] = (1.0, -1.0)) -> Batch:
    """Answers of 1 and 3 tokens to one prompt, as likely under all policies."""
    batch = Batch(((1, 2),), (([3], [3, 3, 3]),), (0,))
    same = torch.where(batch.mask_PKT, -1.0, 0.0)
    return batch.with_columns(
        old_logp_PKT=same,
        reference_logp_PKT=same,
        entropy_PKT=torch.zeros_like(same),
        advantage_PKT=torch.where(batch.mask_PKT, torch.tensor(advantages)[None, :, None], 0),
        beta_P=torch.zeros(1),
    )


def step(method: Any, batch: Batch, moved: list[list[float]]) -> tuple[float, list[float]]:
    """The loss of a step, and its gradient at the tokens, with log-probabilities moved by so much."""
    logp = torch.zeros_like(batch["old_logp_PKT"])
    for k, row in enumerate(moved):
        logp[0, k, : len(row)] = torch.tensor(row)
    policy: Any = Asked(batch["old_logp_PKT"] + logp)
    loss = method.loss(policy, batch).sums["policy"] / method.weight(batch)
    loss.backward()
    assert policy.logp_PKT.grad is not None
    return loss.item(), policy.logp_PKT.grad[batch.mask_PKT].tolist()


ON_POLICY = [[0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("method", "gradient"),
    [
        (RLOO(), [-1 / 4, 1 / 4, 1 / 4, 1 / 4]),  # of 4 tokens
        (DAPO(), [-1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (CISPO(), [-1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (GRPO(), [-1 / 2, 1 / 6, 1 / 6, 1 / 6]),  # of 2 responses, each of its tokens
        (GSPO(), [-1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        (DrGRPO(max_new_tokens=LONGEST), [-0.125, 0.125, 0.125, 0.125]),  # of 2 responses of 4 tokens at most
    ],
    ids=lambda x: type(x).__name__,
)
def test_gradient_on_policy(method: Any, gradient: list[float]) -> None:
    """With advantages 1 and −1 it is minus them, over what the reduction divides by."""
    _, found = step(method, two_answers(), ON_POLICY)
    assert found == pytest.approx(gradient, abs=1e-6)


def test_a_value_role_has_the_same_reduction() -> None:
    batch = two_answers()
    for reduction, weight in (("token", 4), ("response", 2), ("constant", 2)):
        method = PPO(reduction=reduction, max_new_tokens=LONGEST)
        assert method.weight(batch) == weight
    ones = batch.mask_PKT.float()
    assert PPO(reduction="response").reduced(ones, batch) == pytest.approx(2)
    assert PPO(reduction="constant", max_new_tokens=LONGEST).reduced(ones, batch) == pytest.approx(1)


def test_gspo_clips_whole_responses() -> None:
    """Mean log-ratios .3 and (.1 + .2 − .6)/3 = −.1: 1 ± .2 cuts off the first (A > 0), not the second (A < 0)."""
    loss, gradient = step(GSPO(clip=0.2, clip_high=0.2), two_answers(), [[0.3], [0.1, 0.2, -0.6]])
    assert loss == pytest.approx(-0.147581, abs=1e-6)  # (−1.2 + e^−.1)/2
    share = math.exp(-0.1) / 3 / 2
    assert gradient == pytest.approx([0, share, share, share], abs=1e-6)


def test_cispo_keeps_the_gradient_of_a_clipped_token() -> None:
    """Ratios e^.5 and e^0: bounded by 1.1, the weights are 1.1 and 1; −A·w·logp with logp −.5 and −1."""
    method = CISPO(clip_high=0.1)
    loss, gradient = step(method, two_answers((2.0, -1.0)), [[0.5], [0.0, 0.0, 0.0]])
    assert gradient == pytest.approx([-2 * 1.1 / 4, 1 / 4, 1 / 4, 1 / 4], abs=1e-6)
    assert gradient[0] == pytest.approx(-0.55, abs=1e-6)
    assert loss == pytest.approx(-0.475, abs=1e-6)  # (2·1.1·.5 − 3)/4
    _, clipped = step(RLOO(clip=0.1), two_answers((2.0, -1.0)), [[0.5], [0.0, 0.0, 0.0]])
    assert clipped[0] == 0


def test_dapo_clips_higher() -> None:
    """Ratio 1.25: beyond 1.2, within 1.28."""
    moved = [[math.log(1.25)], [0.0, 0.0, 0.0]]
    assert step(DAPO(), two_answers(), moved)[1][0] == pytest.approx(-0.3125, abs=1e-6)  # 1.25 of 4 tokens
    assert step(DAPO(clip_high=None), two_answers(), moved)[1][0] == 0


def scored(*rows: tuple[float, ...], lengths: int = 2) -> Batch:
    batch = Batch(((1, 2),) * len(rows), tuple(([3] * lengths,) * len(row) for row in rows), tuple(range(len(rows))))
    same = torch.full(batch.mask_PKT.shape, -1.0)
    score_PK = torch.zeros(batch.valid_PK.shape)
    for p, row in enumerate(rows):
        score_PK[p, : len(row)] = torch.tensor(row)
    return batch.with_columns(
        score_PK=score_PK,
        ended_PK=torch.ones_like(batch.valid_PK),
        old_logp_PKT=same,
        reference_logp_PKT=same,
        entropy_PKT=torch.zeros_like(same),
    )


def test_dapo_learns_where_scores_differ() -> None:
    batch = scored((1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0), (0.5,))
    assert DAPO().teaches(batch).tolist() == [False, True, False, False]
    assert spread(batch["score_PK"], batch.valid_PK).tolist() == [0, 1, 0, 0]
    assert GRPO().teaches(batch).all()


def test_dapo_penalises_the_last_fifth() -> None:
    """Of 40 tokens 8: up to 32 nothing, at 36 half, at 40 one."""
    method = DAPO(max_new_tokens=40)
    assert method.buffer == 8
    for length, penalty in ((32, 0.0), (36, -0.5), (40, -1.0)):
        score, _ = method._scores(scored((2.0, 3.0), lengths=length), {}, lambda x: x)
        assert score[0].tolist() == pytest.approx([2 + penalty, 3 + penalty])
    assert GRPO(max_new_tokens=40).buffer == 0


class TestReinforcePP:
    def test_returns_are_normalised_over_the_rollout(self) -> None:
        """Scores 3 and 0, no KL: each of 2 tokens has its response's; mean 1.5, deviation 1.5."""
        experience = ReinforcePP(beta=0.0).compute_advantages(scored((3.0,), (0.0,)), {}, lambda x: x)
        assert experience.batch["advantage_PKT"].flatten().tolist() == pytest.approx([1, 1, -1, -1], abs=1e-6)

    def test_the_kl_to_come_is_in_the_return(self) -> None:
        """Log-ratios 1 and 2 at β .5, score 0: returns −1.5 and −1; mean −1.25, deviation .25."""
        batch = scored((0.0,))
        batch = batch.with_columns(reference_logp_PKT=batch["old_logp_PKT"] - torch.tensor([[[1.0, 2.0]]]))
        experience = ReinforcePP(beta=0.5).compute_advantages(batch, {}, lambda x: x)
        assert experience.batch["advantage_PKT"].flatten().tolist() == pytest.approx([-1, 1], abs=1e-5)

    def test_with_a_baseline_of_the_group(self) -> None:
        """(5, 3) and (0, 2) less their means: (1, −1) and (−1, 1), which have deviation 1."""
        method = ReinforcePP(group_baseline=True, responses=2, beta=0.0)
        experience = method.compute_advantages(scored((5.0, 3.0), (0.0, 2.0)), {}, lambda x: x)
        assert experience.batch["advantage_PKT"][..., 0].flatten().tolist() == pytest.approx([1, -1, -1, 1], abs=1e-6)

    def test_one_response_is_enough_without_it(self) -> None:
        assert ReinforcePP().responses == 1
        with pytest.raises(UserError, match="draw at least 2"):
            ReinforcePP(group_baseline=True)


class TestOnlineDPO:
    def test_the_best_and_the_worst_make_the_pair(self) -> None:
        batch = scored((0.2, 0.9, -0.4), (0.5, 0.5, 0.5))
        batch = batch.with_columns(reference_PK=torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]))
        made = OnlineDPO(responses=3).compute_advantages(batch, {}, lambda x: x)
        assert made.batch.K == 2
        assert made.batch["reference_PK"][0].tolist() == [-2, -3]
        assert made.batch["weight_P"].tolist() == [1, 0]
        assert float(made.metrics["pairs/ties"][0]) == 1

    def test_its_loss_is_dpo_on_that_pair(self) -> None:
        """Sums −2 and −6 against −2 and −3: h = (−2 + 2) − (−6 + 3) = 3; a tied pair adds nothing."""
        batch = Batch(((1, 2),) * 2, (([3], [3, 3, 3]),) * 2, (0, 1))
        logp = torch.where(batch.mask_PKT, -2.0, 0.0)
        batch = batch.with_columns(
            reference_PK=torch.tensor([[-2.0, -3.0], [-2.0, -3.0]]), weight_P=torch.tensor([1.0, 0.0])
        )
        policy: Any = Asked(logp)
        method = OnlineDPO(beta=0.5)
        loss = method.loss(policy, batch).sums["policy"]
        assert loss.item() == pytest.approx(0.201413, abs=1e-6)  # log(1 + e^−1.5)
        assert method.weight(batch) == 2

    def test_a_response_that_was_cut_off_is_the_worst(self) -> None:
        batch = scored((0.9, 0.1)).with_columns(
            ended_PK=torch.tensor([[False, True]]), reference_PK=torch.tensor([[-1.0, -2.0]])
        )
        made = OnlineDPO().compute_advantages(batch, {}, lambda x: x)
        assert made.batch["reference_PK"][0].tolist() == [-2, -1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GSPO(reduction="token"), "leave it at response"),
        (lambda: CISPO(clip=0.1), "one bound"),
        (lambda: CISPO(dual_clip=3.0), "one bound"),
        (lambda: OnlineDPO(responses=1), "at least 2"),
        (lambda: DAPO(refills=-1), "refills"),
    ],
)
def test_settings_that_do_not_fit(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


def test_a_roll_out_that_teaches_nothing_is_logged_and_makes_no_update(
    tiny_policy: Policy, pair_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    """Not on the penalty on length alone, whose advantages would be ±1."""

    class OfPrompt:
        name = "of the prompt"

        def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
            del columns
            return [[float(len(prompt))] * len(row) for prompt, row in zip(prompts, responses, strict=True)]

    before = {name: p.detach().clone() for name, p in tiny_policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=2, batch_size=2, max_length=100, learning_rate=1e-2, save_steps=1)
    method = DAPO(responses=2, max_new_tokens=8, overlong_buffer=7, refills=1)
    rows = Preferences.from_rows(pair_rows)
    folder = Trainer(tiny_policy, tmp_path / "run", config).fit(method, rows, scorer=OfPrompt()).folder
    after = tiny_policy.roles.parameters("policy")
    assert all(torch.equal(after[name], before[name]) for name in before)
    records = read_records(folder / "metrics.jsonl")
    assert [record["rollout/teaches"] for record in records] == [0.0, 0.0]
    assert not any("train/loss" in record for record in records)
    assert "constant reward" in [record["name"] for record in read_records(folder / "warnings.jsonl")]
