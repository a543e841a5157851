"""The common part of the methods that learn from responses drawn while they train: drawing, and responses cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.errors import UserError
from align.method.base import RolloutPlan, require_effect, require_positive
from align.method.online import OnlineMethod
from align.sampling.params import SamplingParams
from methods.ppo.advantages import MissingEOS, missing_eos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from align.data import TokenizedPreferences
    from align.model.roles import Role

__all__ = ["RolloutMethod"]


@dataclass(frozen=True, kw_only=True)
class RolloutMethod(OnlineMethod):
    """A method that draws responses from the policy, has them scored, and holds the policy to a reference."""

    responses: int = 2
    """Responses drawn for each prompt."""
    temperature: float = 0.7
    """Sampling temperature."""
    top_p: float = 1.0
    """Nucleus sampling: the smallest set of tokens that has this probability; 1: all."""
    max_new_tokens: int = 64
    """Longest response, in tokens."""
    min_new_tokens: int = 0
    """Shortest response, in tokens."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a response, besides the end-of-turn token."""
    minibatches: int = 1
    """Optimiser steps of a pass over a roll-out."""
    missing_eos: MissingEOS = "replace"
    """Score of a response that was cut off: ``replace`` it, ``subtract`` from it, or ``none`` (leave it)."""
    eos_score: float = -1.0
    """Replaces the score of such a response, or is added to it (then at most 0)."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_positive(type(self).__name__, temperature=self.temperature)
        self.sampling()
        for name in ("responses", "minibatches"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)}: must be at least 1.")
        if self.missing_eos == "subtract" and self.eos_score > 0:
            raise UserError(f"method.eos_score={self.eos_score} would reward a missing end; give at most 0.")
        require_effect(self, self.missing_eos != "none", "method.missing_eos=replace or subtract", "eos_score")

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference."""
        return ("reference",)

    def doubts(self, data: TokenizedPreferences, steps: int) -> Sequence[str]:
        """Rows that weigh more than others: each prompt is answered as often."""
        del steps
        if set(data.table.unique("weight")) <= {1.0}:
            return ()
        name = type(self).__name__
        return (f"the weights of the data's rows do not count: {name} answers every prompt as often as the others.",)

    @property
    def rollout(self) -> RolloutPlan:
        """Sampling, and the steps of one pass."""
        return RolloutPlan(responses=self.responses, sampling=self.sampling(), minibatches=self.minibatches)

    def sampling(self) -> SamplingParams:
        """Return the settings with which responses are drawn."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            stop_strings=self.stop_strings,
        )

    def score_ends(self, score_PK: Tensor, ended_PK: Tensor) -> Tensor:
        """:func:`~methods.ppo.advantages.missing_eos` by these settings."""
        value = self.eos_score if self.missing_eos == "replace" else -self.eos_score
        return missing_eos(score_PK, ended_PK, how=self.missing_eos, value=value)
