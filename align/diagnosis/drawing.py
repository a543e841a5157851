"""Rules on methods that draw while they train: reward, entropy, value, clip.

A policy can raise a proxy reward without limit while true quality falls (Gao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

from align.diagnosis.course import WINDOW, Course
from align.diagnosis.rule import rule

ENTROPY_LEFT = 0.25  # of the entropy at the start
FALL = 0.05  # of the best held-out score
CLIPPED = 0.3  # share of tokens


@rule(
    "over-optimised",
    reads=("rollout/objective/scores", "samples.jsonl"),
    tries=(
        "use the policy of the peak (trainer.eval_steps keeps it in best/)",
        "raise {tie}",
        "improve the reward model (more pairs, an ensemble)",
    ),
)
def over_optimised(run: Course) -> str | None:
    """The training reward rises while the held-out score falls, from its peak or from the start."""
    scores = run.change("rollout/objective/scores")
    if scores is None or scores.last <= scores.first:
        return None
    rises = f"the training reward rose from {scores.first:.3f} to {scores.last:.3f} but"
    peak = _peak(run)
    if peak is not None:
        name, best, last = peak
        if best - last <= FALL * abs(best):
            return None
        return f"{rises} {name} on held-out prompts fell from {best:.3f} to {last:.3f}: the reward is over-optimised"
    won = run.telling_win_rate
    if won is None or won[1].high is None or won[1].high >= 0.5:
        return None
    return (
        f"{rises} held-out answers became worse by {won[0]}, with a win rate over the start model of "
        f"{won[1].percent('prompts')}: the reward is over-optimised"
    )


def _peak(run: Course) -> tuple[str, float, float] | None:
    """First scorer, its best mean over the evaluations, and the latest; None for fewer than three evaluations."""
    measured = [found for _, found in sorted(run.evaluations.items())]
    if len(measured) < 3 or not all(found.samples and found.samples[0].scores for found in measured):
        return None
    name = next(iter(measured[0].samples[0].scores))
    scores = [found.metrics()[name] for found in measured]
    return name, max(scores), scores[-1]


@rule(
    "entropy",
    reads=("rollout/objective/entropy", "rollout/tokens/lengths"),
    tries=("lower trainer.learning_rate", "raise {tie}", "set method.entropy_coef=0.01"),
)
def entropy_collapse(run: Course) -> str | None:
    """The policy has stopped exploring; entropy per token, of responses of any length."""
    ends = (run.first, run.last)
    sums = [end("rollout/objective/entropy") for end in ends]
    lengths = [end("rollout/tokens/lengths") for end in ends]
    if not all(lengths):
        return None
    before, now = (s / n if s is not None and n else None for s, n in zip(sums, lengths, strict=True))
    if before is None or now is None or now >= ENTROPY_LEFT * before:
        return None
    return f"the entropy per token fell from {before:.3f} to {now:.3f} nats: the policy has stopped exploring"


@rule(
    "value",
    reads=("rollout/val/explained_variance",),
    tries=(
        "give it time with method.value_warmup",
        "begin from method.value_init=reward",
        "raise method.value_coef",
        "take a method without a value role",
    ),
)
def value_explains_nothing(run: Course) -> str | None:
    """The value is a worse guess of the returns than their mean, and becomes no better."""
    explained = run.change("rollout/val/explained_variance")
    if explained is None or explained.last >= 0 or -explained.fall > 2 * explained.error:
        return None
    return f"the value role explains nothing of the returns (explained variance {explained.last:.2f})"


@rule(
    "constant reward",
    reads=("rollout/scores/*/std", "rollout/objective/ties", "rollout/pairs/ties", "rollout/teaches"),
    tries=("look at the responses and at what the scorer reads", "draw more for each prompt (method.responses)"),
)
def constant_reward(run: Course) -> str | None:
    """Every response of the last roll-outs has one score, or each of those that are compared: they say nothing."""
    spreads = [_latest(run, name) for name in run.names("rollout/scores/") if name.endswith("/std")]
    if spreads and spreads[0] and not any(map(any, spreads)):
        which = f"all responses of the last {len(spreads[0])} roll-outs have the same score"
        return f"{which}: there is nothing to learn from"
    ties = [_latest(run, f"rollout/{name}") for name in ("objective/ties", "pairs/ties")]
    ties += [[1 - share for share in _latest(run, "rollout/teaches")]]
    for shares in ties:
        if shares and min(shares) == 1:
            return (
                f"in the last {len(shares)} roll-outs the responses to each prompt have the same score, and a method "
                "that compares them has nothing to learn from"
            )
    return None


def _latest(run: Course, name: str) -> Sequence[float]:
    """The last values of a metric of roll-outs; none where a run that goes on has too few."""
    values = run.values(name)
    return values[-WINDOW:] if len(values) >= WINDOW or run.progress >= 1 else ()


@rule(
    "clip fraction",
    reads=("train/policy/clipfrac",),
    tries=("lower trainer.learning_rate", "take fewer passes over a roll-out (method.epochs)", "set method.target_kl"),
)
def clipped(run: Course) -> str | None:
    """Updates go as far from the policy that drew as the clip lets them."""
    share = run.last("train/policy/clipfrac")
    if share is None or share <= CLIPPED:
        return None
    return f"{share:.0%} of the tokens are clipped (healthy: below {CLIPPED:.0%}): the updates of a roll-out go too far"
