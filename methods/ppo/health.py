"""Warnings about an unhealthy on-line run, each with its remedy.

A policy can raise a proxy reward without limit while true quality falls (Gao et al. 2023). The bounds are not sharp;
they separated the runs that went wrong from those that did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from align.evaluation.measurement import Measurement

Rollouts = Sequence[Mapping[str, float]]

WINDOW = 5  # roll-outs averaged on each side of a comparison
KL_BOUND = 20.0  # nats per response
LENGTH_DRIFT = 1.5  # times the length at the start, or the inverse
ENTROPY_LEFT = 0.25  # of the entropy at the start
IDENTICAL = 0.5  # share of the responses of a roll-out
CUT_OFF = 0.5  # share of responses without an end
FALL = 0.05  # of the best held-out score


def warnings(rollouts: Rollouts, evaluations: Sequence[Measurement], *, trains_value: bool) -> dict[str, str]:
    """Name → sentence for each quantity outside its healthy range; see :class:`align.method.online.OnlineMethod`."""
    found = {
        "over-optimised": _over_optimised(rollouts, evaluations),
        "kl": _kl(rollouts),
        "length": _length(rollouts),
        "entropy": _entropy(rollouts),
        "identical": _identical(rollouts),
        "cut off": _cut_off(rollouts),
        "value": _value(rollouts) if trains_value else None,
        "constant reward": _constant(rollouts),
    }
    return {name: sentence for name, sentence in found.items() if sentence is not None}


def _first(rollouts: Rollouts, name: str) -> float:
    return float(np.mean([metrics[name] for metrics in rollouts[:WINDOW]]))


def _last(rollouts: Rollouts, name: str) -> float:
    return float(np.mean([metrics[name] for metrics in rollouts[-WINDOW:]]))


def _over_optimised(rollouts: Rollouts, evaluations: Sequence[Measurement]) -> str | None:
    """The training reward rises while the held-out score falls from its peak."""
    scores = [_decisive(measurement) for measurement in evaluations]
    if len(scores) < 3 or None in scores or len(rollouts) < 2 * WINDOW:
        return None
    known = [score for score in scores if score is not None]
    name, best, last = next(iter(evaluations[0].samples[0].scores)), max(known), known[-1]
    risen = _last(rollouts, "objective/scores") > _first(rollouts, "objective/scores")
    if not risen or best - last <= FALL * abs(best):
        return None
    return (
        f"the training reward still rises but {name} on held-out prompts fell from {best:.3f} to {last:.3f}: the "
        "reward is over-optimised. Use the policy of the peak (best/), raise method.beta, or improve the reward model."
    )


def _decisive(measurement: Measurement) -> float | None:
    if not measurement.samples or not measurement.samples[0].scores:
        return None
    return measurement.metrics()[next(iter(measurement.samples[0].scores))]


def _kl(rollouts: Rollouts) -> str | None:
    kl = _last(rollouts, "objective/kl")
    if kl <= KL_BOUND:
        return None
    return (
        f"the policy is {kl:.1f} nats per response away from its reference (healthy: below {KL_BOUND:.0f}); raise "
        "method.beta, set method.kl_target, or lower trainer.learning_rate."
    )


def _length(rollouts: Rollouts) -> str | None:
    before, now = _first(rollouts, "tokens/lengths"), _last(rollouts, "tokens/lengths")
    if 1 / LENGTH_DRIFT <= now / before <= LENGTH_DRIFT:
        return None
    return (
        f"responses went from {before:.0f} to {now:.0f} tokens; the reward may pay for length: look at samples, and "
        "correct it (scorer length_corrected, method.overlong_buffer) or raise method.beta."
    )


def _entropy(rollouts: Rollouts) -> str | None:
    before, now = _first(rollouts, "policy/entropy"), _last(rollouts, "policy/entropy")
    if now >= ENTROPY_LEFT * before:
        return None
    return (
        f"the entropy per token fell from {before:.3f} to {now:.3f} nats: the policy has stopped exploring; lower "
        "trainer.learning_rate, raise method.beta, or set method.entropy_coef=0.01."
    )


def _identical(rollouts: Rollouts) -> str | None:
    share = _last(rollouts, "identical")
    if share <= IDENTICAL or share <= 1.5 * _first(rollouts, "identical"):
        return None
    return f"{share:.0%} of the responses of a roll-out are repeated word for word; raise method.temperature or beta."


def _cut_off(rollouts: Rollouts) -> str | None:
    ended = _last(rollouts, "val/num_eos_tokens")
    if ended >= 1 - CUT_OFF:
        return None
    return (
        f"{1 - ended:.0%} of the responses are cut off at method.max_new_tokens; raise it, or penalise them "
        "(method.missing_eos, method.overlong_buffer)."
    )


def _value(rollouts: Rollouts) -> str | None:
    if len(rollouts) < 2 * WINDOW or (explained := _last(rollouts, "val/explained_variance")) >= 0:
        return None
    return (
        f"the value role explains nothing of the returns (explained variance {explained:.2f}): give it time with "
        "method.value_warmup, begin from method.value_init=reward, or use method=rloo, which has none."
    )


def _constant(rollouts: Rollouts) -> str | None:
    """Every response of the last roll-outs has one score, so that no advantage says anything."""
    spreads = [
        value
        for metrics in rollouts[-WINDOW:]
        for name, value in metrics.items()
        if name.startswith("scores/") and name.endswith("/std")
    ]
    if len(rollouts) < WINDOW or not spreads or any(spreads):
        return None
    return (
        f"all responses of the last {WINDOW} roll-outs have the same score: there is nothing to learn from; look at "
        "samples, and at what the scorer reads."
    )
