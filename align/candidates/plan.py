"""The plan of a drawing before training, and the selection that turns candidates into rows.

See :mod:`align.candidates.drawing` for the drawing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from align.data.pairs_and_rankings import ranking_rows
from align.sampling.params import SamplingParams

__all__ = ["CandidatePlan", "Pool", "Ranking", "Selected", "Selection", "told_of_candidates"]


@dataclass(frozen=True)
class Pool:
    """The candidates of one prompt."""

    rows: Sequence[Mapping[str, Any]]
    """The rows of the data that have this prompt, at least one."""
    texts: Sequence[str]
    """Distinct responses: those drawn, in the order of drawing, then those of the data."""
    times: Sequence[int]
    """Times that each was drawn; 0 for one that only the data has."""
    scores: Sequence[float] | None
    """One per response; None where nothing was scored."""
    seed: int = 0
    """Of the drawing."""

    @property
    def row(self) -> Mapping[str, Any]:
        """The first of the rows: what it says of the prompt stands for all."""
        return self.rows[0]


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
    """Pairs that hold the whole ranking by score (:func:`align.data.pairs_and_rankings.ranking_rows`).

    A prompt whose responses are all tied has none.
    """

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        assert pool.scores is not None
        rows = list(ranking_rows(pool.texts, pool.scores))
        if not rows:
            return Selected([], {"tied" if len(pool.texts) > 1 else "single": 1})
        return Selected([{**row, "ranking": pool.row.get("prompt_id")} for row in rows], {"ranked": 1})


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
    update_reference: bool = False
    """The reference of each round is the policy that the round before left, not the start model."""
    from_base: bool = False
    """Training begins from the pretrained model, not from the policy that the candidates were drawn from."""

    def settings(self) -> dict[str, Any]:
        """Return what decides the candidates of a prompt; of ``sources`` the weights do, not the place."""
        beside = ("rounds", "from_base", "update_reference", "sources")
        plan = {name: value for name, value in asdict(self).items() if name not in beside}
        return {**plan, "select": {"name": type(self.select).__name__, **plan["select"]}}


_MANY = 0.1  # share of unfinished responses from which on there is something to change


def told_of_candidates(counts: Mapping[str, float], plan: CandidatePlan) -> list[str]:
    """Return the counts of a drawing as sentences (:func:`align.candidates.store.read_summary`)."""
    rest = dict(counts)

    def take(name: str) -> int:
        return int(rest.pop(name, 0))

    drawn, unfinished, unusable = take("drawn"), take("unfinished"), take("unusable")
    longest = plan.sampling.max_new_tokens
    first = f"{drawn:,} responses to {take('prompts'):,} prompts ({take('tokens'):,} tokens)"
    parts = [
        (take("left_out"), "prompts were too long"),
        (unfinished, f"were cut off at {longest} tokens and left out"),
        (unusable, "were empty or unusable"),
    ]
    lines = [
        "; ".join([f"{first}, {take('distinct'):,} distinct", *(f"{count:,} {what}" for count, what in parts if count)])
    ]
    for told_elsewhere in ("scored", "scored_prompts", "rows"):
        take(told_elsewhere)
    if "reward_mean" in rest:
        mean, best = rest.pop("reward_mean"), rest.pop("reward_best")
        lines.append(f"Reward {mean:.3f} on average, {best:.3f} the best of a prompt")
    if rest:
        lines.append(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in rest.items()))
    if drawn and unfinished / drawn >= _MANY:
        lines.append(
            f"Warning: {unfinished / drawn:.0%} of the responses had no end within {longest} tokens; raise "
            "method.max_new_tokens, or keep them with method.keep_unfinished=true."
        )
    return lines
