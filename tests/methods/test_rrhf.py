"""RRHF: the vectors of docs/methods.md, a plain loop over ragged rankings with ties, the reference, and a training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.errors import UserError
from align.model.batch import Batch
from methods.ranking import best_response
from methods.rrhf import RRHF, _average, kl_penalty, rank_loss

Y1, Y2, Y3 = [-0.5, -1.0, -1.5], [-0.8, -0.4], [-0.7, -0.9, -1.1, -0.5]
REWARDS = [[0.2, -1.0, 0.9]]
Table = Sequence[Sequence[Sequence[float]]]


def better(*pairs: tuple[int, int], K: int) -> Tensor:
    out = torch.zeros(1, K, K, dtype=torch.bool)
    for i, j in pairs:
        out[0, i, j] = True
    return out


def random_table(counts: Sequence[int], seed: int) -> tuple[list[list[list[float]]], list[list[float]]]:
    """Token log-probabilities of rankings of these sizes, and rewards among which some are tied."""
    draw = random.Random(seed)
    table = [[[-draw.expovariate(1) for _ in range(draw.randint(1, 7))] for _ in range(k)] for k in counts]
    return table, [[draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(k)] for k in counts]


def by_loop(responses: Sequence[Sequence[float]], rewards: Sequence[float]) -> tuple[float, float]:
    """L_rank and the summed log-probability of the best response of one prompt, as the paper prints them."""
    p = [sum(logps) / len(logps) for logps in responses]
    rank = 0.0
    for i, low in enumerate(rewards):
        for j, high in enumerate(rewards):
            if low < high:
                rank += max(0.0, p[i] - p[j])
    return rank, sum(responses[rewards.index(max(rewards))])


class TestLoss:
    def test_vector(self, stub: Any, like: Callable[..., Batch]) -> None:
        table = [[Y1, Y2, Y3]]
        method, policy, batch = RRHF(), stub(policy=table), like(table, rewards=REWARDS)
        loss = method.loss(policy, batch)
        assert method.weight(batch) == 1
        assert loss.sums["policy"].item() == pytest.approx(3.8)
        values = {name: float(total) / float(weight) for name, (total, weight) in loss.metrics.items()}
        assert values == pytest.approx(
            {
                "loss": 3.8,
                "loss/rank": 0.6,
                "loss/sft": 3.2,
                "rewards/chosen": (-1.0 - 0.8 - 0.8) / 3,  # p of y1 over y2, y3 over y2, y3 over y1
                "rewards/rejected": (-0.6 - 0.6 - 1.0) / 3,
                "rewards/accuracies": 1 / 3,
                "rewards/margins": (-0.4 - 0.2 + 0.2) / 3,
            }
        )
        assert RRHF.headline in values

    def test_vector_of_the_authors_code(self, stub: Any, like: Callable[..., Batch]) -> None:
        """A prompt of 2 tokens and a best response of 4: rows of 6, so the SFT term is 3.2/6."""
        table = [[Y1, Y2, Y3]]
        loss = RRHF(form="code").loss(stub(policy=table), like(table, rewards=REWARDS))
        assert loss.sums["policy"].item() == pytest.approx(1.133333, abs=5e-7)
        assert float(loss.metrics["loss/sft"][0]) == pytest.approx(0.533333, abs=5e-7)

    def test_rows_of_the_code_form_are_padded_per_prompt(self, stub: Any, like: Callable[..., Batch]) -> None:
        """The best response is not the longest, and another prompt of the batch is longer: rows of 3+4 and 9+3."""
        table = [[Y1, Y3], [Y1, Y2]]
        batch = like(table, rewards=[[1.0, 0.0], [0.0, 1.0]], prompt_lengths=[3, 9])
        loss = RRHF(form="code", rank_weight=0).loss(stub(policy=table), batch).sums["policy"]
        assert loss.item() == pytest.approx(3.0 / 7 + 1.2 / 12)

    def test_gradient_of_the_ranking_loss(self, stub: Any, like: Callable[..., Batch]) -> None:
        """Against the same loss without it; y1, y2, y3 have 3, 2 and 4 tokens, the rest is padding."""
        table, grads = [[Y1, Y2, Y3]], []
        for rank_weight in (1.0, 0.0):
            policy = stub(policy=table)
            loss = RRHF(rank_weight=rank_weight).loss(policy, like(table, rewards=REWARDS))
            loss.sums["policy"].backward()
            grads.append(policy.logp_PKT.grad)
        ranking = [[[-1 / 3] * 3 + [0.0], [1.0] * 2 + [0.0] * 2, [-1 / 4] * 4]]
        torch.testing.assert_close(grads[0] - grads[1], torch.tensor(ranking, dtype=torch.float64))
        best_only = [[[0.0] * 4, [0.0] * 4, [-1.0] * 4]]
        torch.testing.assert_close(grads[1], torch.tensor(best_only, dtype=torch.float64))

    @pytest.mark.parametrize("seed", range(4))
    def test_a_plain_loop(self, seed: int, stub: Any, like: Callable[..., Batch]) -> None:
        counts, weights = (2, 5, 3, 2, 7), [1.0, 0.5, 2.0, 1.5, 1.0]
        table, rewards = random_table(counts, seed)
        method = RRHF(rank_weight=3.0)
        batch = like(table, rewards=rewards, weights=weights)
        expected = 0.0
        for row, reward, weight in zip(table, rewards, weights, strict=True):
            rank, best = by_loop(row, reward)
            expected += weight * (3 * rank - best)
        assert method.loss(stub(policy=table), batch).sums["policy"].item() == pytest.approx(expected)
        assert method.weight(batch) == 6

    def test_ties_are_skipped(self, stub: Any, like: Callable[..., Batch]) -> None:
        """All tied: nothing to rank, the first is fine-tuned. Two tied: each is compared with the third alone."""
        table = [[Y1, Y2, Y3], [Y1, Y2, Y3]]
        batch = like(table, rewards=[[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
        loss = RRHF().loss(stub(policy=table), batch)
        assert float(loss.metrics["loss/rank"][0]) == pytest.approx(0.4 + 0.2)
        assert loss.sums["policy"].item() == pytest.approx(0.6 + 2 * 3.0)
        assert loss.metrics["rewards/accuracies"][1] == 2

    def test_equally_likely_responses_are_half_in_the_right_order(self, stub: Any, like: Callable[..., Batch]) -> None:
        metrics = RRHF().loss(stub(policy=[[Y2, Y2]]), like([[Y2, Y2]], rewards=[[1.0, 0.0]])).metrics
        assert float(metrics["rewards/accuracies"][0]) == 0.5

    def test_what_lies_where_no_response_is_does_not_count(self) -> None:
        p = torch.tensor([[-1.0, -0.6, 99.0]])
        assert rank_loss(p, better((0, 1), K=3)).tolist() == pytest.approx([0.4])

    def test_rank_weight_scales_the_ranking_loss_alone(self, stub: Any, like: Callable[..., Batch]) -> None:
        table = [[Y1, Y2, Y3]]
        for weight in (0.0, 2.5):
            loss = RRHF(rank_weight=weight).loss(stub(policy=table), like(table, rewards=REWARDS)).sums["policy"]
            assert loss.item() == pytest.approx(3.2 + 0.6 * weight)


def test_the_average_of_a_response_that_is_not_there_is_0(like: Callable[..., Batch]) -> None:
    batch = like([[Y1, Y2, Y3], [Y1]])
    sums = torch.tensor([[-3.0, -1.2, -3.2], [-3.0, 0.0, 0.0]])
    assert _average(sums, batch).tolist() == [pytest.approx([-1.0, -0.6, -0.8]), [-1.0, 0.0, 0.0]]


class TestBest:
    def test_it_is_the_one_that_nothing_beats(self) -> None:
        """0 wins twice but 3 was preferred to it; of 1 and 3, which nothing beats, 3 has a win."""
        found = best_response(better((0, 1), (0, 2), (3, 0), K=5), torch.tensor([[True] * 4 + [False]]))
        assert found.tolist() == [3]

    def test_of_several_it_has_the_most_wins_then_the_first_place(self) -> None:
        valid = torch.ones(1, 5, dtype=torch.bool)
        assert best_response(better((1, 0), (2, 3), (2, 4), K=5), valid).tolist() == [2]
        assert best_response(better((1, 0), (2, 3), K=5), valid).tolist() == [1]
        assert best_response(better(K=5), valid).tolist() == [0]

    def test_in_a_circle_the_wins_decide(self) -> None:
        circle = better((0, 1), (1, 2), (2, 0), (1, 3), K=4)
        assert best_response(circle, torch.ones(1, 4, dtype=torch.bool)).tolist() == [1]

    def test_a_place_without_a_response_is_never_the_best(self) -> None:
        """Nothing beats it, and in a circle everything else is beaten."""
        circle = better((0, 1), (1, 2), (2, 0), K=4)
        assert best_response(circle, torch.tensor([[True, True, True, False]])).tolist() == [0]

    def test_ragged(self) -> None:
        both = torch.cat([better((1, 0), K=3), better((2, 0), (2, 1), K=3)])
        assert best_response(both, torch.tensor([[True, True, False], [True] * 3])).tolist() == [1, 2]


class TestReference:
    def test_none_unless_the_policy_is_held_to_it(self, stub: Any, like: Callable[..., Batch]) -> None:
        assert RRHF().roles == ("policy",)
        assert RRHF(kl_coef=0.1).roles == ("policy", "reference")
        table = [[Y1, Y2, Y3]]
        batch = RRHF().prepare(stub(policy=table), like(table, rewards=REWARDS))
        assert "reference_logp_PKT" not in batch

    def test_penalty(self, stub: Any, like: Callable[..., Batch]) -> None:
        """k3 per token, summed over a response, averaged over the three: d = .3 on y1's first, −.2 on y2's last."""
        table = [[Y1, Y2, Y3]]
        reference = [[[-0.2, -1.0, -1.5], [-0.8, -0.6], Y3]]
        policy, method = stub(policy=table, reference=reference), RRHF(kl_coef=2.0)
        batch = method.prepare(policy, like(table, rewards=REWARDS))
        loss = method.loss(policy, batch)
        penalty = ((math.exp(0.3) - 1 - 0.3) + (math.exp(-0.2) - 1 + 0.2)) / 3
        assert float(loss.metrics["loss/kl"][0]) == pytest.approx(penalty)
        assert loss.sums["policy"].item() == pytest.approx(3.8 + 2 * penalty)
        assert policy.role == "policy"

    def test_vector_of_k3(self) -> None:
        """docs/methods.md, PPO: Σk3 = .172623 of one response; a second one at its reference halves the mean."""
        logp = torch.tensor([[[-1.0, -0.5, -2.0], [-1.0, 99.0, 99.0]]])
        reference = torch.tensor([[[-1.2, -0.4, -1.5], [-1.0, 7.0, 7.0]]])
        mask = torch.tensor([[[True] * 3, [True, False, False]]])
        assert kl_penalty(logp, reference, mask).item() == pytest.approx(0.172623 / 2, abs=1e-6)

    def test_penalty_is_a_mean_over_the_responses_that_exist(self) -> None:
        logp = torch.tensor([[[-1.0], [-1.0], [99.0]], [[-1.0], [-1.0], [-1.0]]])
        mask = torch.tensor([[[True], [True], [False]], [[True], [True], [True]]])
        k3 = math.exp(0.5) - 1.5
        assert kl_penalty(logp, logp + 0.5, mask).tolist() == pytest.approx([k3, k3])
        first = logp + torch.tensor([[[0.5], [0.0], [0.0]]])
        assert kl_penalty(logp, first, mask).tolist() == pytest.approx([k3 / 2, k3 / 3])

    def test_gradient_is_0_at_the_reference(self) -> None:
        logp = torch.tensor([[Y1, [-0.8, -0.4, 99.0]]], requires_grad=True)
        mask = torch.tensor([[[True] * 3, [True, True, False]]])
        kl_penalty(logp, logp.detach(), mask).sum().backward()
        assert logp.grad is not None
        assert logp.grad.tolist() == [[[0.0] * 3, [0.0] * 3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank_weight": -1.0}, r"method\.rank_weight=-1\.0"),
        ({"rank_weight": float("nan")}, r"method\.rank_weight=nan"),
        ({"kl_coef": -0.1}, r"method\.kl_coef=-0\.1"),
        ({"kl_coef": float("inf")}, r"method\.kl_coef=inf"),
        ({"form": "authors"}, r"form must be paper or code, not 'authors'\."),
    ],
)
def test_construction_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RRHF(**settings)


def test_it_learns_to_rank_the_worlds_pairs(tmp_path: Path, measured: Callable[..., dict[str, float]]) -> None:
    """On 24 prompts p_i comes to order more comparisons as people did, and the run reports it."""
    method, policy = RRHF(rank_weight=20.0, kl_coef=0.1), Policy.load("world/base", start="world/sft")
    rows = Preferences.load("world").select(range(24))
    before = measured(method, policy, rows)
    config = TrainerConfig(epochs=3, batch_size=8, max_length=256, learning_rate=1e-3, save_steps=None)
    result = Trainer(policy, tmp_path / "run", config).fit(method, rows, rows)
    after = measured(method, policy, rows)
    assert after["rewards/margins"] > before["rewards/margins"] + 0.02
    assert after["loss/rank"] < before["loss/rank"]
    assert (before["loss/kl"], after["loss/kl"] > 0) == (0, True)
    assert result.evaluation is not None
    reported = result.evaluation["metrics"]["likelihood_accuracy"]
    assert reported["after"] == after["rewards/accuracies"] > before["rewards/accuracies"] == reported["before"]


def test_without_a_reference_in_memory_there_is_no_accuracy_before(
    tiny_model: Path, tmp_path: Path, pair_rows: list[dict[str, Any]]
) -> None:
    policy, rows = Policy.load(str(tiny_model), adapter=None), Preferences.from_rows(pair_rows)
    config = TrainerConfig(steps=1, max_length=200, save_steps=None)
    result = Trainer(policy, tmp_path / "run", config).fit(RRHF(), rows, rows)
    assert "reference" not in policy.roles.names
    assert result.evaluation is not None
    reported = result.evaluation["metrics"]["likelihood_accuracy"]
    assert reported["before"] is None
    assert 0 <= reported["after"] <= 1


def test_the_comparisons_of_one_prompt_are_not_independent(stub: Any, tokenizer: Any) -> None:
    """Four prompts with three comparisons each, all right for two and all wrong for two, say as much as 2 of 4, whose
    Wilson interval is .150 to .850.
    """
    pairs = [("a cat", "a dog"), ("a dog", "a house"), ("a cat", "a house")]
    rows = [{"prompt": p, "chosen": a, "rejected": b} for p in ("the", "big", "red", "old") for a, b in pairs]
    data = tokenize(Preferences.from_rows(rows), tokenizer, max_length=64, unit="ranking")
    falling = [[-1.0] * 3, [-2.0] * 3, [-3.0] * 3]
    policy = stub(policy=[falling] * 6 + [falling[::-1]] * 6)  # by the first of a prompt's three rows
    policy.roles = SimpleNamespace(names=("policy",))
    policy.in_micro_batches = lambda batch, ask, **_: ask(batch)
    found = RRHF().report(policy, data, data, None)["intervals"]["likelihood_accuracy"]["after"]
    assert (found["mean"], found["n"]) == (0.5, 12)
    assert (found["low"], found["high"]) == pytest.approx((0.15004, 0.84996), abs=5e-5)
