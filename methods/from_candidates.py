"""The common part of the methods that learn from candidates: settings of the drawing, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.candidates.plan import CandidatePlan
from align.candidates.store import read_summary
from align.errors import UserError
from align.method.base import Method, require_effect
from align.sampling.params import SamplingParams

if TYPE_CHECKING:
    from align.data import TokenizedPreferences
    from align.model.policy import Policy

__all__ = ["CandidateMethod"]


_DRAWING = (
    *("sources", "temperature", "top_k", "top_p", "diversity_penalty", "max_new_tokens"),
    *("keep_unfinished", "include_data"),
)


@dataclass(frozen=True, kw_only=True)
class CandidateMethod(Method):
    """A method whose data may be responses that the policy draws before training."""

    samples: int = 0
    """Candidates drawn for each prompt, scored and ranked, before training; 0: the data as it is."""
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
    include_data: bool = True
    """Use the responses of the data as candidates too."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        if self.samples < 0:
            raise UserError(f"method.samples={self.samples}: must be at least 0.")
        if self.samples == 1 and not self.sources and not self.include_data:
            raise UserError(
                "method.samples=1: a ranking needs two responses; raise it or set method.include_data=true."
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
    def candidates(self) -> CandidatePlan | None:
        """Rankings by score, if ``samples`` is above 0."""
        if not self.samples:
            return None
        return CandidatePlan(
            samples=self.samples,
            sources=self.sources,
            sampling=self.sampling(),
            include_data=self.include_data,
            keep_unfinished=self.keep_unfinished,
        )

    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> Mapping[str, Any]:
        """Counts of the samples by fate, if the training data was drawn by :mod:`align.candidates.drawing`."""
        del policy, heldout, folder
        summary = read_summary(train.report.source)
        return {} if summary is None else {"candidates": summary}
