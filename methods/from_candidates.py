"""The common part of the methods that learn from candidates: settings of the drawing and the rounds, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from align.candidates.plan import CandidatePlan, Ranking, Selection
from align.candidates.store import read_summary
from align.errors import UserError
from align.method.base import Method, require_effect, require_positive
from align.sampling.params import SamplingParams
from methods.picked_pairs import AllPairs, BestWorst, RejectionSampled

if TYPE_CHECKING:
    from align.data import TokenizedPreferences
    from align.model.policy import Policy

__all__ = ["CandidateMethod", "PairsAgainstReference", "PairsFromCandidates"]


_DRAWING = (
    *("rounds", "sources", "temperature", "top_k", "top_p", "diversity_penalty", "max_new_tokens"),
    *("keep_unfinished", "include_data"),
)


@dataclass(frozen=True, kw_only=True)
class CandidateMethod(Method):
    """A method whose data may be responses that the policy draws before training."""

    compares: ClassVar[bool] = True
    """It learns from responses that are compared, so that one to a prompt is not enough."""

    samples: int = 0
    """Candidates drawn for each prompt, scored and ranked, before training; 0: the data as it is."""
    rounds: int = 1
    """Rounds of drawing and training, each draws from the policy of the round before (iterated DPO, RRHF, SLiC …)."""
    sources: tuple[str, ...] = ()
    """Adapters on this base, or models with this tokenizer (folders or hub names), that draw as many each."""
    temperature: float = 0.7
    """Sampling temperature; 0 with a ``diversity_penalty``."""
    top_k: int = 0
    """Sample from the k most probable tokens only; 0: all."""
    top_p: float = 1.0
    """Nucleus sampling: the smallest set of tokens that has this probability; 1: all."""
    diversity_penalty: float = 0.0
    """Above 0, with temperature 0: diverse beam search instead of random samples."""
    max_new_tokens: int = 64
    """Longest response, in tokens."""
    keep_unfinished: bool = False
    """Keep responses that were cut off at the longest length."""
    include_data: bool = False
    """Use the responses of the data as candidates too."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        if self.samples < 0:
            raise UserError(f"method.samples={self.samples}: must be at least 0.")
        if self.rounds < 1:
            raise UserError(f"method.rounds={self.rounds}: must be at least 1.")
        if self.compares and self.samples == 1 and not self.sources and not self.include_data:
            raise UserError(
                "method.samples=1: a comparison needs two responses; raise it or set method.include_data=true."
            )
        require_effect(self, self.samples > 0, "method.samples", *_DRAWING)
        self.sampling()

    def sampling(self) -> SamplingParams:
        """Return the settings with which responses are drawn."""
        if self.temperature == 0 and self.samples > 1 and not self.diversity_penalty:
            raise UserError(
                "method.temperature=0: all samples of a prompt would be the same; raise it or method.diversity_penalty."
            )
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            diversity_penalty=self.diversity_penalty,
        )

    @property
    def selection(self) -> Selection:
        """The rows that the candidates of a prompt become: their ranking by score."""
        return Ranking()

    @property
    def candidates(self) -> CandidatePlan | None:
        """The drawing of each round, if ``samples`` is above 0."""
        if not self.samples:
            return None
        return CandidatePlan(
            samples=self.samples,
            sources=self.sources,
            sampling=self.sampling(),
            include_data=self.include_data,
            keep_unfinished=self.keep_unfinished,
            select=self.selection,
            rounds=self.rounds,
        )

    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> Mapping[str, Any]:
        """Counts of the samples by fate, if the training data was drawn by :mod:`align.candidates.drawing`."""
        del policy, heldout, folder
        summary = read_summary(train.report.source)
        return {} if summary is None else {"candidates": summary}


@dataclass(frozen=True, kw_only=True)
class PairsFromCandidates(CandidateMethod):
    """A method that learns from pairs, which may be picked from responses that the policy draws before training."""

    pick: Literal["best_worst", "all", "rso"] = "best_worst"
    """Pairs of a prompt's samples: ``best_worst`` by score, ``all``, or of those that RSO's rejection accepts."""
    rso_beta: float = 0.5
    """RSO accepts a sample with probability e^((its score − the highest)/this): lower means fewer of low scores."""
    rso_accepted: int = 4
    """Samples that RSO accepts of each prompt; they give half as many pairs."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_effect(self, self.samples > 0, "method.samples", "pick")
        require_effect(self, self.pick == "rso", "method.pick=rso", "rso_beta", "rso_accepted")
        if self.pick != "rso":
            return
        require_positive("RSO", rso_beta=self.rso_beta)
        drawn = self.samples * (1 + len(self.sources))
        if self.rso_accepted < 2 or self.rso_accepted % 2 or self.rso_accepted >= drawn:
            raise UserError(
                f"method.rso_accepted={self.rso_accepted} of {drawn} samples: must be an even number, at least 2 and "
                "below them, or nothing is rejected."
            )
        if self.include_data:
            raise UserError(
                "method.pick=rso turns samples of the policy into samples of a better one; the data's responses are "
                "none: leave method.include_data=true out."
            )

    @property
    def selection(self) -> Selection:
        """The pairs of ``pick``."""
        if self.pick == "rso":
            return RejectionSampled(self.rso_beta, self.rso_accepted)
        return AllPairs() if self.pick == "all" else BestWorst()


@dataclass(frozen=True, kw_only=True)
class PairsAgainstReference(PairsFromCandidates):
    """The same with a loss that asks a reference."""

    update_reference: bool = False
    """The reference of each of the ``rounds`` is the policy of the one before (SPPO); false: the start model."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_effect(self, self.rounds > 1, "method.rounds above 1", "update_reference")

    @property
    def candidates(self) -> CandidatePlan | None:
        """The drawing of each round, and what its training refers to."""
        plan = super().candidates
        return None if plan is None else replace(plan, update_reference=self.update_reference)
