"""Scores on their way to rewards, normalised, clipped and lowered where an answer is too long, and the objective."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import GRPO, PPO, RLOO
from tests.methods.ppo.rollout_by_hand import FLAT_ENTROPY, experienced, means


class TestScores:
    def outcome(self, method: Any, state: Any = None, **changed: Tensor) -> Any:
        experience = experienced(method, state, **changed)
        return experience, experience.batch["return_PKT"]

    def test_normalised_by_the_deviation_of_all_scores_so_far(self) -> None:
        """The scores 1, 3, −2, .5 here and 5, −1 before them: Σ 6.5, Σ² 40.25 of 6; the mean is not taken off."""
        method = PPO(normalize_scores=True, missing_eos="none", beta=0.0, lam=1.0)
        state = {"score_count": 2.0, "score_sum": 4.0, "score_squares": 26.0}
        experience, returned = self.outcome(method, state)
        deviation = math.sqrt(40.25 / 6 - (6.5 / 6) ** 2)
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([s / deviation for s in (1, 3, -2, 0.5)], rel=1e-5)
        kept = {name: experience.state[name] for name in state}
        assert kept == {"score_count": 6.0, "score_sum": 6.5, "score_squares": 40.25}

    def test_equal_scores_are_not_divided_by_nothing(self) -> None:
        method = PPO(normalize_scores=True, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method, score_PK=torch.full((2, 2), 2.0))
        assert returned[0, 0, 0].item() == pytest.approx(2.0 / 1e-4)

    def test_the_clip_comes_after_the_division(self) -> None:
        method = PPO(normalize_scores=True, score_clip=0.4, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method)
        deviation = math.sqrt(14.25 / 4 - (2.5 / 4) ** 2)
        expected = [max(-0.4, min(0.4, s / deviation)) for s in (1, 3, -2, 0.5)]
        assert returned[:, :, 0].flatten().tolist() == pytest.approx(expected, rel=1e-5)

    def test_too_long_counts_from_the_longest_length(self) -> None:
        """Of at most 4 tokens the last 2 cost: one of 3 has half of it."""
        method = PPO(overlong_buffer=2, max_new_tokens=4, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method)
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([0.5, 3.0, -2.0, 0.5])

    @pytest.mark.parametrize(
        ("settings", "cut_off"),
        [
            ({}, -1.0),
            ({"eos_score": -2.5}, -2.5),
            ({"missing_eos": "subtract", "eos_score": -0.5}, 2.5),
            ({"missing_eos": "none"}, 3.0),
        ],
    )
    def test_only_the_response_that_was_cut_off_pays(self, settings: dict[str, Any], cut_off: float) -> None:
        _, returned = self.outcome(PPO(beta=0.0, lam=1.0, **settings))
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([1.0, cut_off, -2.0, 0.5])


class TestObjective:
    X = (0.2, -0.1, -0.5, -0.5, 0.25, -0.25, 0.0, 1.0)  # log-ratios of the eight tokens to the reference

    @pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
    def test_every_metric_is_a_mean_over_responses(self, estimator: Any) -> None:
        """The KL that is logged is k1's whatever is paid for."""
        method = PPO(beta=0.5, kl_estimator=estimator)
        k = {"k1": lambda x: x, "k2": lambda x: x * x / 2, "k3": lambda x: math.exp(-x) - 1 + x}[estimator]
        paid = -0.5 * sum(map(k, self.X)) / 4
        scores = (1 - 1 - 2 + 0.5) / 4
        found = means(experienced(method).metrics)
        assert {name: value for name, value in found.items() if name.startswith("objective/")} == pytest.approx(
            {
                "objective/kl": sum(self.X) / 4,
                "objective/entropy": sum(FLAT_ENTROPY) / 4,
                "objective/scores": scores,
                "objective/non_score_reward": paid,
                "objective/rlhf_reward": scores + paid,
                "objective/beta": 0.5,
            },
            rel=1e-5,
            abs=1e-6,
        )

    @pytest.mark.parametrize("method", [RLOO(responses=2), GRPO(responses=2), PPO(responses=2, advantage="group")])
    def test_prompts_whose_responses_tie_are_counted(self, method: Any) -> None:
        """After shaping: all score 1, but one response to the first prompt is cut off."""
        assert means(experienced(method, score_PK=torch.ones(2, 2)).metrics)["objective/ties"] == 0.5
        assert means(experienced(method).metrics)["objective/ties"] == 0
        assert "objective/ties" not in means(experienced(PPO()).metrics)

    def test_the_weight_is_steered_by_the_kl_of_a_response(self) -> None:
        """.025 nats a response are a quarter above the target: the error is clipped at .2; 4 of 20 responses."""
        method = PPO(kl_target=0.02, kl_horizon=20.0, beta=0.5)
        first = experienced(method)
        assert first.state["beta"] == pytest.approx(0.5 * (1 + 0.2 * 4 / 20))
        assert first.batch["beta_P"].tolist() == [0.5, 0.5]
        second = experienced(method, first.state)
        assert second.batch["beta_P"].tolist() == pytest.approx([first.state["beta"]] * 2)
        assert means(second.metrics)["objective/beta"] == pytest.approx(first.state["beta"])
        assert [first.state["rollouts"], second.state["rollouts"]] == [1, 2]

    @pytest.mark.parametrize("method", [RLOO(responses=2, kl_in="loss"), GRPO(responses=2, group_scale="none")])
    def test_what_is_in_the_loss_is_not_in_the_reward(self, method: Any) -> None:
        free = dataclasses.replace(method, beta=0.0, kl_in=type(method).kl_in, kl_estimator=type(method).kl_estimator)
        torch.testing.assert_close(experienced(method).batch["advantage_PKT"], experienced(free).batch["advantage_PKT"])
        paid = dataclasses.replace(method, kl_in="reward", beta=0.5)
        assert (experienced(paid).batch["advantage_PKT"] - experienced(free).batch["advantage_PKT"]).abs().max() > 0.01
