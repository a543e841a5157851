"""Prompts that teach nothing: others take their place in the roll-out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy
from align.method.base import RolloutPlan
from align.model.batch import Batch
from align.system.processes import Processes
from align.system.randomness import derived_seed
from tests.align.training.fake_rollouts import Ends, FakeSampler, K, Plain, make

pytestmark = pytest.mark.usefixtures("fake_sampler")


class Picky(Plain):
    """Learns from prompts whose responses score differently, and has others drawn for twice."""

    @property
    def rollout(self) -> RolloutPlan:
        return dataclasses.replace(super().rollout, refills=2)

    def teaches(self, batch: Batch) -> torch.Tensor:
        return batch["score_PK"][:, 0] != batch["score_PK"][:, 1]


class Bored(Picky):
    """Learns from none."""

    def teaches(self, batch: Batch) -> torch.Tensor:
        return torch.zeros(batch.P, dtype=torch.bool)


class TestRefills:
    """Responses to row 0 score alike, those to all others differ; a roll-out has four of six prompts."""

    def seed(self, policy: Policy) -> int:
        """One by which row 0 is among the first four."""
        return next(n for n in range(50) if 0 in make(policy, Ends(), cls=Picky, seed=n).prompts(0)[1])

    def test_others_take_the_place_of_prompts_that_teach_nothing(self, tiny_policy: Policy) -> None:
        seed = self.seed(tiny_policy)
        source = make(tiny_policy, Ends(), cls=Picky, seed=seed)
        batch = source.batch(1)
        assert batch is not None
        first, second = FakeSampler.asked  # three of the first four, and of the next four what is new
        assert [asked[3] for asked in (first, second)] == [derived_seed(seed, place) for place in (0, 1)]
        assert not {*second[4]} & ({*first[4]} - {0})
        assert sorted(batch.rows) == sorted(({*first[4]} | {*second[4]}) - {0})
        assert batch["score_PK"].shape == (batch.P, K)
        drawn = sum(len(asked[4]) for asked in (first, second))
        assert source.metrics["tokens/drawn"] == 3 * K * drawn
        assert source.metrics["teaches"] == batch.P / 8

    def test_the_next_roll_out_goes_on_with_other_prompts(self, tiny_policy: Policy) -> None:
        source = make(tiny_policy, Ends(), cls=Picky, seed=self.seed(tiny_policy))
        source.batch(1)
        FakeSampler.asked.clear()
        source.batch(2)
        assert FakeSampler.asked[0][4] == source.prompts(3)[0].rows

    def test_where_nothing_teaches_the_roll_out_is_measured_and_left(self, tiny_policy: Policy, tmp_path: Path) -> None:
        """All of its updates; the next is drawn anew, also by a run that is resumed."""
        source = make(tiny_policy, Ends(), cls=Bored, epochs=2)
        assert source.batch(1) is None
        assert len(FakeSampler.asked) == 3
        assert source.metrics["teaches"] == 0
        assert source.metrics["own"] == 1.5
        assert source.state == {"rollouts": 1.0}
        source.save(tmp_path / "rollout-0")
        again = make(tiny_policy, Ends(), cls=Bored, epochs=2)
        again.load([tmp_path / "rollout-0"], deal=False)
        for each in (source, again):
            assert each.batch(2) is None
            assert each.metrics == {}
        assert len(FakeSampler.asked) == 3
        assert again.batch(3) is None
        assert len(FakeSampler.asked) == 6

    def test_ranks_agree(self, tiny_policy: Policy, at_ranks: Any) -> None:
        seed = self.seed(tiny_policy)

        def run(processes: Processes) -> Any:
            source = make(tiny_policy, Ends(), processes, cls=Picky, seed=seed)
            source._asked = lambda batch: batch.with_columns(old_logp_PKT=batch["sampler_logp_PKT"])
            return source.batch(1), source._order

        (ours, order), (theirs, other) = at_ranks(2, run)
        assert order == other
        assert sorted(order) == sorted([*ours.rows, *theirs.rows])
        assert 0 not in order
        assert len(order) >= 4
