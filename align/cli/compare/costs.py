"""Costs of a contender: time, memory, tokens, and an estimate of the floating-point operations of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.candidates.store import read_summary
from align.cli.compare.stages import Stages, name_of
from align.cli.compare.words import Contender
from align.cli.launch.recipe import CANDIDATES
from align.comparison import flops
from align.comparison.results import Cost
from align.runs.tracker import read_records

__all__ = ["cost"]


def cost(stages: Stages, contender: Contender, seed: int, parameters: int) -> Cost:
    """Add up what a contender took with one seed; ``parameters`` multiply activations in its model."""
    contest = stages.contest
    jobs = stages.needs(contender, seed)
    records = [record for name in jobs if (record := stages.pool.record(name)) is not None]
    tokens = {name: _tokens(contest.folder / "runs" / name) for name in jobs}
    trained, drawn = (sum(of[i] for of in tokens.values()) for i in (0, 1))
    own, drawn_by_own = tokens[name_of(contender, seed)]
    method = contest.methods[contender.label]
    scored = contender.label in contest.needs_reward
    return Cost(
        seconds=sum(record["seconds"] for record in records),
        peak_bytes=max(record["peak_bytes"] for record in records),
        tokens_trained=trained,
        tokens_of_reward=trained - own,
        tokens_drawn=drawn,
        flops=flops.estimate(
            parameters,
            trained=trained + own * (len(method.trains) - 1),
            drawn=drawn,
            asked=_asked(method, own, drawn_by_own, scored=scored),
            adapters=contest.comparison.config.adapter is not None,
        ),
    )


def _asked(method: Any, trained: float, drawn: float, *, scored: bool) -> float:
    """Tokens that roles are asked about without a gradient, once for each role; ``scored``: by a reward model too.

    On-line, all roles are asked about a roll-out, which is then trained on in several passes; otherwise the frozen
    roles in each step, and the reward model about the candidates.
    """
    if method.rollout is not None:
        return trained / method.rollout.epochs * (len(method.roles) + scored)
    return trained * len(method.frozen) + drawn * scored


def _tokens(run: Path) -> tuple[float, float]:
    """Return the tokens that a run trained on, in all passes, and those that it drew, before training and during it."""
    steps = [record for file in run.rglob("metrics.jsonl") for record in read_records(file)]
    candidates = [read_summary(file) or {} for file in run.rglob(CANDIDATES)]
    drawn = sum(s.get("rollout/tokens/drawn", 0.0) for s in steps) + sum(of.get("tokens", 0.0) for of in candidates)
    return sum(step.get("train/tokens", 0.0) for step in steps), drawn
