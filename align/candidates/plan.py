"""The plan of a drawing before training, and the selection that turns candidates into rows.

See :mod:`align.candidates.drawing` for the drawing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from align.sampling.params import SamplingParams

__all__ = ["CandidatePlan", "Pool", "Ranking", "Selected", "Selection"]


@dataclass(frozen=True)
class Pool:
    """The candidates of one prompt."""

    row: Mapping[str, Any]
    """The first row of the data that has this prompt."""
    texts: Sequence[str]
    """Distinct responses: those drawn, in the order of drawing, then those of the data."""
    times: Sequence[int]
    """Times that each was drawn; 0 for one that only the data has."""
    scores: Sequence[float] | None
    """One per response; None where nothing was scored."""


@dataclass(frozen=True)
class Selected:
    """The rows selected from one pool."""

    rows: Sequence[Mapping[str, Any]]
    """Rows of the pairwise format, without the columns of the prompt, which are the same for all."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Counts to sum over the prompts, by name."""


class Selection(Protocol):
    """Turns a pool into rows; a frozen dataclass, whose fields must be the same when a drawing is resumed."""

    def __call__(self, pool: Pool) -> Selected:
        """Select rows from the candidates of one prompt."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Pairs that hold the whole ranking by score; of equal scores neither is preferred.

    A response is paired with the first one of the next better score, and one of the best with the first of the next
    worse: K responses make about K rows, from which the scores give all comparisons (unit ``ranking``). A prompt whose
    responses are all tied has none.
    """

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        assert pool.scores is not None
        levels: dict[float, list[str]] = {}
        for score, text in sorted(zip(pool.scores, pool.texts, strict=True), key=lambda item: -item[0]):
            levels.setdefault(score, []).append(text)
        if len(levels) < 2:
            return Selected([], {"tied" if len(pool.texts) > 1 else "single": 1})
        scores, groups = list(levels), list(levels.values())
        rows = [_pair(groups[0][i], scores[0], groups[1][0], scores[1]) for i in range(len(groups[0]))]
        for place in range(1, len(groups)):
            skipped = place == 1  # its first one is in the rows above
            for text in groups[place][skipped:]:
                rows.append(_pair(groups[place - 1][0], scores[place - 1], text, scores[place]))
        return Selected(rows, {"ranked": 1})


@dataclass(frozen=True, kw_only=True)
class CandidatePlan:
    """The drawing of responses for each prompt, and the selection from them."""

    samples: int
    """K, drawn from each policy."""
    sources: tuple[str, ...] = ()
    """Folders or hub names of the models that draw besides the policy, for whoever loads them and calls `draw`."""
    sampling: SamplingParams
    include_data: bool = True
    """The responses of the data are candidates too."""
    keep_unfinished: bool = False
    """Keep responses that were cut off at the longest length; they have no end of turn to learn."""
    scored: bool = True
    """A scorer is needed."""
    select: Selection = field(default_factory=Ranking)
    rounds: int = 1
    """Rounds of drawing and training, each from the policy that the round before left."""
    from_base: bool = False
    """Training begins from the pretrained model, not from the policy that the candidates were drawn from."""


def _pair(chosen: str, chosen_score: float, rejected: str, rejected_score: float) -> dict[str, Any]:
    return {
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": chosen_score,
        "rejected_score": rejected_score,
    }
