"""SLiC-HF: the vectors of docs/methods.md, a plain loop over ragged rankings, TRL's hinge, targets, and a training."""

from __future__ import annotations

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
from methods.slic import SLiC, calibration_loss

Y1, Y2, Y3 = [-0.5, -1.0, -1.5], [-0.8, -0.4], [-0.7, -0.9, -1.1, -0.5]  # sums −3.0, −1.2, −3.2
PAIR = torch.tensor([[[False, True], [False, False]]])


def demonstrated(batch: Batch) -> Batch:
    """y1 ≻ y2, and a third response that was compared with none."""
    better_PKK = torch.zeros(1, 3, 3, dtype=torch.bool)
    better_PKK[0, 0, 1] = True
    return batch.with_columns(better_PKK=better_PKK)


def by_loop(
    responses: Sequence[Sequence[float]], rewards: Sequence[float], method: SLiC
) -> tuple[float, float, float, int]:
    """Loss, its hinge and its cross-entropy, summed over the comparisons of one prompt, and their number."""
    hinge, entropy, comparisons = 0.0, 0.0, 0
    best = rewards.index(max(rewards))
    for i, high in enumerate(rewards):
        for j, low in enumerate(rewards):
            if high > low:
                hinge += max(0.0, method.delta - sum(responses[i]) + sum(responses[j]))
                entropy -= sum(responses[i if method.target == "chosen" else best])
                comparisons += 1
    return hinge + method.sft_weight * entropy, hinge, entropy, comparisons


class TestLoss:
    @pytest.mark.parametrize(("order", "expected"), [((0, 1), 4.4), ((1, 0), 1.6)])
    def test_vector(self, order: tuple[int, int], expected: float, stub: Any, like: Callable[..., Batch]) -> None:
        """δ 1, λ .5, y_ref = y3: 2.8 + 1.6; with the preference the other way round 0 + 1.6."""
        table = [[Y1, Y2, Y3]]
        better_PKK = torch.zeros(1, 3, 3, dtype=torch.bool)
        better_PKK[0][order] = True
        batch = like(table).with_columns(better_PKK=better_PKK)
        method = SLiC(delta=1.0, sft_weight=0.5, target="sft")
        loss = method.loss(stub(policy=table), batch)
        assert method.weight(batch) == 1
        assert loss.sums["policy"].item() == pytest.approx(expected)
        assert float(loss.metrics["loss/rank"][0]) == pytest.approx(expected - 1.6)
        assert float(loss.metrics["loss/sft"][0]) == pytest.approx(3.2)

    def test_gradient(self, stub: Any, like: Callable[..., Batch]) -> None:
        """Where the margin is not reached: −1 on the preferred, +1 on the other, −λ on the target; none on padding."""
        table = [[Y1, Y2, Y3]]
        policy, batch = stub(policy=table), demonstrated(like(table))
        SLiC(target="sft").loss(policy, batch).sums["policy"].backward()
        expected = [[[-1.0] * 3 + [0.0], [1.0] * 2 + [0.0] * 2, [-0.5] * 4]]
        torch.testing.assert_close(policy.logp_PKT.grad, torch.tensor(expected, dtype=torch.float64))

    @pytest.mark.parametrize("target", ["chosen", "best"])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_plain_loop(self, target: Any, seed: int, stub: Any, like: Callable[..., Batch]) -> None:
        """Ragged rankings with ties; a hinge (B,) added to a cross-entropy (B, T) would count it T times."""
        draw = random.Random(seed)
        counts, weights = (2, 5, 3, 2, 7), [1.0, 0.5, 2.0, 1.5, 1.0]
        table = [[[-draw.expovariate(1) for _ in range(draw.randint(1, 7))] for _ in range(k)] for k in counts]
        rewards = [[draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(k)] for k in counts]
        method, batch = SLiC(delta=1.5, sft_weight=0.3, target=target), like(table, rewards=rewards, weights=weights)
        rows = [by_loop(row, reward, method) for row, reward in zip(table, rewards, strict=True)]
        total, hinge, entropy, weight = (
            sum(w * row[i] for w, row in zip(weights, rows, strict=True)) for i in range(4)
        )
        loss = method.loss(stub(policy=table), batch)
        assert loss.sums["policy"].shape == ()
        assert method.weight(batch) == pytest.approx(weight)
        assert loss.sums["policy"].item() == pytest.approx(total)
        assert float(loss.metrics["loss/rank"][0]) == pytest.approx(hinge)
        assert float(loss.metrics["loss/sft"][0]) == pytest.approx(entropy)

    def test_the_hinge_of_trl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """CPO's hinge in TRL 1.16 is max(0, 1 − β·(S⁺ − S⁻)), without a reference: ours over δ at β = 1/δ."""
        monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.cpo import CPOTrainer

        generator = torch.Generator().manual_seed(0)
        S_PK, delta = -10 * torch.rand(16, 2, generator=generator), 2.5
        settings = SimpleNamespace(
            accelerator=SimpleNamespace(device="cpu"), loss_type="hinge", beta=1 / delta, alpha=0.0, label_smoothing=0
        )
        settings.simpo_gamma = 0.0
        theirs = CPOTrainer.cpo_loss(settings, S_PK[:, 0], S_PK[:, 1])[0]  # pyright: ignore[reportArgumentType]
        assert 0 < int((theirs > 0).sum()) < 16
        torch.testing.assert_close(calibration_loss(S_PK, PAIR.expand(16, 2, 2), delta), delta * theirs)

    def test_what_lies_where_no_response_is_does_not_count(self) -> None:
        better_PKK = torch.zeros(1, 3, 3, dtype=torch.bool)
        better_PKK[0, 0, 1] = True
        assert calibration_loss(torch.tensor([[-3.0, -1.2, 99.0]]), better_PKK, 1.0).tolist() == pytest.approx([2.8])

    def test_ties_have_no_loss(self, stub: Any, like: Callable[..., Batch]) -> None:
        """Not even a cross-entropy: without a comparison there is no example."""
        table = [[Y1, Y2], [Y1, Y2]]
        batch = like(table, rewards=[[1.0, 1.0], [1.0, 0.0]])
        for target in ("chosen", "best", "sft"):
            method = SLiC(target=target)
            assert method.weight(batch) == 1
            assert method.loss(stub(policy=table), batch).sums["policy"].item() == pytest.approx(2.8 + 0.5 * 3.0)

    def test_lengths_normalised(self, stub: Any, like: Callable[..., Batch]) -> None:
        """Means −1.0 and −.6: 1 + 1.0 − .6, and λ·1.0."""
        table = [[Y1, Y2]]
        batch = like(table, rewards=[[1.0, 0.0]])
        loss = SLiC(normalize_length=True).loss(stub(policy=table), batch).sums["policy"]
        assert loss.item() == pytest.approx(1.4 + 0.5)

    def test_metrics(self, stub: Any, like: Callable[..., Batch]) -> None:
        table = [[Y1, Y2], [Y2, Y1]]
        metrics = SLiC().loss(stub(policy=table), like(table, rewards=[[1.0, 0.0]] * 2)).metrics
        assert {name: float(total) / float(weight) for name, (total, weight) in metrics.items()} == pytest.approx(
            {
                "loss": (2.8 + 0.5 * 3.0 + 0 + 0.5 * 1.2) / 2,
                "loss/rank": 1.4,
                "loss/sft": 2.1,
                "rewards/chosen": -2.1,
                "rewards/rejected": -2.1,
                "rewards/accuracies": 0.5,
                "rewards/margins": 0.0,
            }
        )
        assert SLiC.headline in metrics


class TestTarget:
    TABLE = ((Y1, Y2, Y3),)

    def entropy(self, method: SLiC, batch: Batch, stub: Any) -> float:
        return float(method.loss(stub(policy=self.TABLE), batch).metrics["loss/sft"][0])

    def test_of_a_ranking(self, stub: Any, like: Callable[..., Batch]) -> None:
        """y3 ≻ y1 ≻ y2: of three comparisons y3 is preferred in two and y1 in one; the best is always y3."""
        batch = like(self.TABLE, rewards=[[0.2, -1.0, 0.9]])
        assert self.entropy(SLiC(target="chosen"), batch, stub) == pytest.approx(2 * 3.2 + 3.0)
        assert self.entropy(SLiC(target="best"), batch, stub) == pytest.approx(3 * 3.2)
        assert self.entropy(SLiC(target="sft"), batch, stub) == pytest.approx(3 * 3.2)  # has no demonstration

    def test_of_a_ranking_with_a_demonstration(self, stub: Any, like: Callable[..., Batch]) -> None:
        batch = demonstrated(like(self.TABLE))
        assert self.entropy(SLiC(target="chosen"), batch, stub) == pytest.approx(3.0)
        assert self.entropy(SLiC(target="best"), batch, stub) == pytest.approx(3.0)
        assert self.entropy(SLiC(target="sft"), batch, stub) == pytest.approx(3.2)

    def test_a_place_without_a_response_is_no_demonstration(self, stub: Any, like: Callable[..., Batch]) -> None:
        table = [[Y1, Y2], [Y1, Y2, Y3]]
        batch = like(table, rewards=[[1.0, 0.0], [2.0, 1.0, 0.0]])
        loss = SLiC(target="sft").loss(stub(policy=table), batch)
        assert float(loss.metrics["loss/sft"][0]) == pytest.approx(3.0 + 3 * 3.0)

    def test_the_data_has_a_demonstration(self, tiny_policy: Policy) -> None:
        """A row without a rejected response joins the ranking of its prompt, and the loss finds it."""
        rows: list[dict[str, Any]] = [
            {"prompt": "p", "prompt_id": "one", "chosen": "aa", "rejected": "b"},
            {"prompt": "p", "prompt_id": "one", "chosen": "the demonstration", "rejected": None},
        ]
        data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
        batch = Batch.from_examples(data)
        lengths: Tensor = batch.length_PK[0]
        counts = SLiC(target="sft")._targets(batch["better_PKK"], batch.valid_PK)
        assert (counts.sum().item(), lengths[counts[0].argmax()].item()) == (1, lengths.max().item())


def test_there_is_no_reference() -> None:
    assert SLiC().roles == ("policy",)
    assert SLiC().cached_columns(passes=2) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0.0}, r"method\.delta=0\.0"),
        ({"delta": -1.0}, r"method\.delta=-1\.0"),
        ({"delta": float("nan")}, r"method\.delta=nan"),
        ({"sft_weight": -0.5}, r"method\.sft_weight=-0\.5"),
        ({"sft_weight": float("inf")}, r"method\.sft_weight=inf"),
        ({"target": "demonstration"}, r"target must be chosen, best or sft, not 'demonstration'\."),
    ],
)
def test_construction_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SLiC(**settings)


def test_it_learns_the_worlds_pairs(tmp_path: Path, measured: Callable[..., dict[str, float]]) -> None:
    method, policy = SLiC(), Policy.load("world/base", start="world/sft")
    rows = Preferences.load("world").select(range(24))
    before = measured(method, policy, rows)
    config = TrainerConfig(epochs=3, batch_size=8, max_length=256, learning_rate=1e-3, save_steps=None)
    Trainer(policy, tmp_path / "run", config).fit(method, rows)
    after = measured(method, policy, rows)
    assert after["rewards/margins"] > before["rewards/margins"] + 0.5
    assert after["rewards/accuracies"] > before["rewards/accuracies"]
    assert after["loss"] < before["loss"]
