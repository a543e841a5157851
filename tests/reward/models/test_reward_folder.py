"""The folder given as a reward model: one of a policy is answered when the scorer is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.errors import UserError
from align.model.policy import Policy
from reward import RewardModelScorer


def test_the_folder_of_a_policy(tiny_policy: Policy, tmp_path: Path) -> None:
    """``final`` and the run itself name ``final/reward``; an adapter without a head is none."""
    tiny_policy.save(tmp_path / "sft")
    tiny_policy.require(["reward"])
    final = tmp_path / "rm" / "final"
    tiny_policy.save(final)
    for folder in (final, final.parent):
        with pytest.raises(UserError, match=rf"the reward model in it is {final / 'reward'}"):
            RewardModelScorer(model=str(folder))
    with pytest.raises(UserError, match=r"CAUSAL_LM.*without the head of a reward model"):
        RewardModelScorer(model=str(tmp_path / "sft"))
    RewardModelScorer(model=str(final / "reward"))
