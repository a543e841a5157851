"""The panels of a dashboard: which metrics are drawn together, under which heading.

A dashboard has the panels of this table whose metrics were logged, whatever method logged them: the names are the
field's, so that those of a family bring its panels with them. A metric that no panel names gets one of its own under
"Other metrics"; `UNSHOWN` lists those that get none, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

__all__ = ["SECTIONS", "TABLES", "UNSHOWN", "Panel", "Section", "layout"]


@dataclass(frozen=True)
class Panel:
    """One chart of metrics by name; ``*`` stands for any characters."""

    title: str
    metrics: tuple[str, ...]
    kind: Literal["line", "bar", "scatter", "groups"] = "line"
    """line: over the steps; bar: one for each run; groups: one for each group of
    runs; scatter: the last value of the second metric over that of the first."""


@dataclass(frozen=True)
class Section:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


SECTIONS = (
    Section(
        "Result",
        (
            Panel(
                "Win rate over the start model, with its 95 % interval",
                ("result/win_rate/low", "result/win_rate", "result/win_rate/high"),
                "bar",
            ),
            Panel("Best evaluation", ("result/best/*",), "bar"),
            Panel("Measured after training", ("result/after/*",), "bar"),
        ),
    ),
    Section(
        "Reward against KL",
        (
            Panel("Scores of roll-outs", ("rollout/objective/scores", "rollout/scores/*")),
            Panel("KL from the reference", ("rollout/objective/kl", "evaluation/kl", "*/kl")),
            Panel("Roll-out score over KL", ("rollout/objective/kl", "rollout/objective/scores"), "scatter"),
            Panel("Evaluated score over KL", ("evaluation/kl", "evaluation/*"), "scatter"),
            Panel("Reward with KL penalty", ("rollout/objective/rlhf_reward", "rollout/objective/non_score_reward")),
            Panel("Weight of the KL", ("rollout/objective/beta",)),
        ),
    ),
    Section(
        "Evaluation on held-out prompts",
        (
            Panel("Scores", ("evaluation/*",)),
            Panel("Pairs ranked as labelled", ("evaluation/preference_accuracy",)),
            Panel("Diversity", ("evaluation/distinct_2",)),
        ),
    ),
    Section(
        "Loss",
        (
            Panel("Loss", ("train/loss", "heldout/loss")),
            Panel("Parts of the loss", ("train/loss/*", "heldout/loss/*")),
            Panel("Negative log-likelihood per token", ("train/nll_per_token", "heldout/nll_per_token")),
        ),
    ),
    Section(
        "Accuracies and margins",
        (
            Panel(
                "Accuracy",
                ("train/rewards/accuracies", "heldout/rewards/accuracies", "train/accuracy", "heldout/accuracy"),
            ),
            Panel("Margin", ("train/rewards/margins", "heldout/rewards/margins", "train/margin", "heldout/margin")),
            Panel("Rewards of chosen and rejected", ("*/rewards/chosen", "*/rewards/rejected", "*/rewards/shift")),
            Panel("Log-probabilities of chosen and rejected", ("*/logps/chosen", "*/logps/rejected")),
        ),
    ),
    Section(
        "Health of the policy gradient",
        (
            Panel("Entropy", ("train/policy/entropy", "rollout/objective/entropy")),
            Panel("Distance of the update", ("train/policy/approxkl",)),
            Panel("Clipped tokens", ("train/policy/clipfrac", "train/val/clipfrac")),
            Panel("Probability ratio", ("train/val/ratio", "train/val/ratio_var")),
            Panel("Explained variance of the value", ("rollout/val/explained_variance",)),
            Panel("Sampler against policy", ("rollout/sampling/*",)),
            Panel("Identical responses", ("rollout/identical",)),
            Panel("Prompts whose responses tie", ("rollout/objective/ties",)),
        ),
    ),
    Section(
        "Lengths",
        (
            Panel(
                "Tokens of a response",
                ("rollout/tokens/lengths", "evaluation/response_length", "*/tokens_per_response"),
            ),
            Panel("Responses that end by themselves", ("rollout/val/num_eos_tokens",)),
        ),
    ),
    Section(
        "Candidates",
        (
            Panel(
                "Drawn and kept", ("candidates/drawn", "candidates/distinct", "candidates/kept", "candidates/*"), "bar"
            ),
            Panel("Rewards of candidates", ("candidates/reward_mean", "candidates/reward_best"), "bar"),
            Panel("Tokens of candidates", ("candidates/tokens",), "bar"),
        ),
    ),
    Section(
        "Optimiser and speed",
        (
            Panel("Gradient norm", ("train/grad_norm",)),
            Panel("Learning rate", ("train/learning_rate",)),
            Panel("Tokens per second", ("train/tokens_per_second",)),
            Panel("Seconds", ("train/seconds", "rollout/seconds/*")),
        ),
    ),
)
"""In the order of the dashboard. A metric belongs to the panels that name it whole, else to the first that matches."""

TABLES = ("before_and_after", "samples")
"""Answers of the start model beside those of the trained one, and those of the latest evaluation."""

UNSHOWN: Mapping[str, str] = {
    "train/epoch": "is the step in another unit",
    "train/tokens": "adds up to the tokens per second that are shown",
    "rollout/tokens/drawn": "is the length of a response times their number",
    "rollout/scores/*/std": "is the spread within one roll-out; the mean is shown",
    "rollout/scores/*/milliseconds": "is a part of the seconds of a roll-out",
    "result/win_rate/n": "is the number of prompts, which the table of runs shows",
}
"""Metrics without a panel, and why."""

OTHER = "Other metrics"


def layout(names: Iterable[str]) -> list[Section]:
    """Return the sections whose metrics are among the ``names``, with the names in place of the patterns."""
    wanted = sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in UNSHOWN))
    whole = {metric for section in SECTIONS for panel in section.panels for metric in panel.metrics}
    taken: set[str] = set()
    out: list[Section] = []
    for section in SECTIONS:
        panels: list[Panel] = []
        for panel in section.panels:
            found = _metrics(panel, wanted, whole, taken)
            if panel.kind == "scatter":  # beside the lines of the same metrics
                x, *scores = found or ("",)
                if x == panel.metrics[0]:
                    panels += [Panel(f"{panel.title}: {score}", (x, score), "scatter") for score in scores]
            elif found:
                taken.update(found)
                panels.append(Panel(panel.title, tuple(found), panel.kind))
        if panels:
            out.append(Section(section.title, tuple(panels)))
    if others := [name for name in wanted if name not in taken]:
        out.append(Section(OTHER, tuple(Panel(name, (name,)) for name in others)))
    return out


def _metrics(panel: Panel, names: Sequence[str], whole: set[str], taken: set[str]) -> list[str]:
    """Return the names of a panel in its order: those it names whole, and by a pattern those that no other has."""
    found: dict[str, None] = {}
    for metric in panel.metrics:
        for name in names:
            if name == metric or (name not in whole and name not in taken and fnmatchcase(name, metric)):
                found[name] = None
    return list(found)
