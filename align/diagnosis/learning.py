"""Rules on losses, gradients and pairs: does the model learn, and what the data says?"""

from __future__ import annotations

import math
from itertools import takewhile
from statistics import median

from align.diagnosis.course import WINDOW, Change, Course
from align.diagnosis.drawing import constant_reward
from align.diagnosis.rule import rule
from align.runs.tracker import FAILED

LN2 = math.log(2)
FEWEST_STEPS = 20  # before a course is called flat
NEAR_LN2, NO_MARGIN = 0.01, 0.02  # nats
UNCHANGED = 0.8  # share of held-out answers that are the same, word for word
FLAT = 0.02  # of the loss at the start
RISEN, FAR_RISEN = 0.05, 2.0  # of the loss at the start, beyond noise; times the loss of the first step
SPIKE, SPIKES = 10.0, 3  # times the usual gradient norm; number of them
OVERFITTED = 0.05  # of the lowest held-out loss
REVERSED = 0.48  # upper end of the interval of held-out accuracy
DISPLACED = 0.2  # of the log-probability at the start
LEAST_DISPLACED = 1.0  # nats per response
MORE_ACCURATE = 0.52


@rule(
    FAILED,
    reads=("train/*", "rollout/*"),
    tries=("mend that and continue with if_exists=resume", "begin a new run where a setting must change"),
)
def failed(run: Course) -> str | None:
    """An error ended the run, and it has not gone on."""
    return None if run.failure is None else f"an error ended the run after step {run.step} ({run.failure.rstrip('.')})"


@rule(
    "loss at ln 2",
    reads=("train/loss", "train/rewards/margins", "train/margin"),
    tries=(
        "raise trainer.learning_rate",
        "train longer (trainer.epochs)",
        "see whether chosen and rejected differ (align data check)",
    ),
)
def loss_at_ln2(run: Course) -> str | None:
    """−log σ(0): the model still prefers neither response."""
    loss, margin = run.change("train/loss"), _margin(run)
    if loss is None or margin is None or loss.n < FEWEST_STEPS or run.progress < 0.5:
        return None
    if max(abs(loss.first - LN2), abs(loss.last - LN2)) > NEAR_LN2 or abs(margin) > NO_MARGIN:
        return None
    return f"after {run.step} steps the loss is {loss.last:.4f}, still that of a coin flip (ln 2 = {LN2:.4f})"


def _margin(run: Course) -> float | None:
    found = run.last("train/rewards/margins")
    return run.last("train/margin") if found is None else found


@rule(
    "no gradient",
    reads=("train/grad_norm",),
    tries=(
        "look at the answers that are compared and at their scores (align data check)",
        "lower {tie}, which may have saturated the loss",
        "take another loss",
    ),
)
def no_gradient(run: Course) -> str | None:
    """The gradient has been exactly 0 for several steps, or for half of a short run, whatever the reason."""
    norms = run.values("train/grad_norm")
    zeros = sum(1 for _ in takewhile(lambda norm: norm == 0, reversed(norms)))
    if zeros < (WINDOW if run.progress < 1 else min(WINDOW, (len(norms) + 1) // 2)) or not zeros:
        return None
    if constant_reward.says(run) or loss_at_ln2.says(run):
        return None
    return f"the gradient has been exactly 0 in the last {zeros} steps that were logged: nothing is learned"


@rule(
    "learning rate too low",
    reads=("train/loss", "train/grad_norm", "samples.jsonl"),
    tries=("raise trainer.learning_rate, ten times for a start", "train longer (trainer.epochs)"),
)
def learning_rate_too_low(run: Course) -> str | None:
    """The loss has not fallen beyond its noise while the gradient is as it was, and the answers are the same."""
    if run.resolved.get("learning_rate") == 0:
        return "the learning rate is 0, so nothing was trained"
    loss, norm = run.change("train/loss"), run.change("train/grad_norm")
    if loss is None or norm is None or run.draws or loss.n < FEWEST_STEPS or run.progress < 0.5:
        return None
    if loss.fall > 2 * loss.error or not norm.first / 2 <= norm.last <= norm.first * 2:
        return None
    if loss_at_ln2.says(run) or no_gradient.says(run):
        return None
    moved = f"the loss went from {loss.first:.3f} to {loss.last:.3f} while the gradient is as large as it was"
    same = _unchanged(run)
    if same is None:  # while the run goes on, answers may come
        return moved if run.progress >= 1 and abs(loss.fall) <= FLAT * abs(loss.first) else None
    return (
        f"{moved}, and {same:.0%} of the held-out answers are those of the start model" if same >= UNCHANGED else None
    )


def _unchanged(run: Course) -> float | None:
    """Share of held-out answers that training left as they were, drawn with the same seed."""
    if run.answers is None:
        return None
    before, after = (measured.samples for measured in run.answers)
    return sum(b.response == a.response for b, a in zip(before, after, strict=True)) / len(after)


@rule(
    "learning rate too high",
    reads=("train/loss", "train/grad_norm"),
    tries=("lower trainer.learning_rate three to ten times", "warm up longer (trainer.warmup)", "raise {tie}"),
)
def learning_rate_too_high(run: Course) -> str | None:
    """The loss ends above its start, or the gradient jumps again and again."""
    loss, norms = run.change("train/loss"), run.values("train/grad_norm")
    if loss is None or run.draws:
        return None
    start = run.values("train/loss")[0]  # the first window may have the rise in it
    if -loss.fall > max(3 * loss.error, RISEN * abs(loss.first)) or 0 < FAR_RISEN * start < loss.last:
        return f"the training loss rose from {min(loss.first, start):.3f} to {loss.last:.3f}"
    if len(norms) <= WARM:
        return None
    usual = max(median(norms), median(norms[WARM : 2 * WARM]))  # it falls with the loss
    spikes = sum(norm > SPIKE * usual for norm in norms[WARM:])
    if spikes < SPIKES:
        return None
    return f"the gradient norm was above {SPIKE:.0f} times its usual {usual:.3g} in {spikes} steps"


WARM = 5  # first steps, in which a new adapter's gradient may be anything


@rule(
    "overfitting",
    reads=("train/loss", "heldout/loss"),
    tries=(
        "take fewer epochs (trainer.epochs) or more data",
        "evaluate on the way (trainer.eval_steps) and stop at the lowest heldout/loss",
        "raise {tie}",
    ),
)
def overfitting(run: Course) -> str | None:
    """The held-out loss rises again while the training loss falls; one value is compared with ln 2 at the start."""
    loss, held = run.change("train/loss"), run.values("heldout/loss")
    if loss is None or not held or loss.fall <= 2 * loss.error:
        return None
    trained = f"while train/loss fell from {loss.first:.3f} to {loss.last:.3f}"
    if len(held) > 2:
        lowest = min(held)
        if held[-1] - lowest <= OVERFITTED * abs(lowest):
            return None
        return f"heldout/loss rose from {lowest:.3f} to {held[-1]:.3f} {trained}"
    start = run.values("train/loss")[0]  # the first window may have most of the fall in it
    if _margin(run) is None or abs(start - LN2) > 5 * NEAR_LN2 or held[-1] <= LN2 * (1 + OVERFITTED):
        return None
    return f"heldout/loss is {held[-1]:.3f}, above the {LN2:.3f} of an untrained model, {trained}"


@rule(
    "labels reversed",
    reads=("evaluation/preference_accuracy", "evaluation.json"),
    tries=(
        "see with align data show whether chosen and rejected are exchanged, in the training or the held-out pairs",
        "map the columns (data.columns)",
    ),
)
def labels_reversed(run: Course) -> str | None:
    """The model orders held-out pairs against their labels, and that is no chance."""
    found = run.pair_accuracy
    if found is None or found.high is None or found.high >= REVERSED:
        return None
    return f"only {found.percent('held-out pairs')} are ordered as labelled: the labels look reversed"


@rule(
    "likelihood displacement",
    reads=("*/rewards/chosen", "*/rewards/accuracies", "*/logps/chosen"),
    tries=(
        "raise {tie}",
        "lower trainer.learning_rate or trainer.epochs",
        "fine-tune on the chosen responses first, or add cross-entropy on them to the loss",
        "leave out pairs whose two responses are nearly the same",
    ),
)
def likelihood_displacement(run: Course) -> str | None:
    """Pairs are ordered better while the chosen responses lose probability as well (Razin et al. 2024)."""
    beta = run.method.get("beta")
    phase = "heldout" if run.values("heldout/logps/chosen") else "train"
    window = 1 if phase == "heldout" else 5
    names = (f"{phase}/logps/chosen", f"{phase}/rewards/chosen", f"{phase}/rewards/accuracies")
    now, reward, accuracy = (run.last(name, window) for name in names)
    if now is None or reward is None or accuracy is None or not beta:
        return None
    change = reward / beta  # log π − log π_ref
    if accuracy < MORE_ACCURATE or -change <= max(LEAST_DISPLACED, DISPLACED * abs(now - change)):
        return None
    return (
        f"{accuracy:.0%} of the pairs are ordered right, but the log-probability of the chosen responses fell from "
        f"{now - change:.1f} to {now:.1f} nats: probability goes to responses that nobody preferred"
    )


@rule(
    "nothing learned",
    reads=("samples.jsonl", "evaluation/preference_accuracy", "train/loss", "heldout/loss", "rollout/objective/scores"),
    tries=(
        "train longer (trainer.epochs)",
        "raise trainer.learning_rate",
        "measure on more prompts (evaluation.prompts)",
        "look at the data (align data check)",
    ),
)
def nothing_learned(run: Course) -> str | None:
    """Neither the win rate nor pairs nor the objective moved beyond noise."""
    won, pairs = run.telling_win_rate, run.pair_accuracy
    if won is None or not _undecided(won[1].low, won[1].high) or loss_at_ln2.says(run):
        return None
    if no_gradient.says(run) or constant_reward.says(run) or learning_rate_too_low.says(run) or _objective_moved(run):
        return None
    if pairs is not None and not _undecided(pairs.low, pairs.high):
        return None
    return f"nothing was learned beyond noise: the win rate over the start model is {won[1].percent('prompts')}"


def _undecided(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= 0.5 <= high


def _objective_moved(run: Course) -> bool:
    if run.draws:
        scores = run.change("rollout/objective/scores")
        return scores is not None and -scores.fall > 2 * scores.error
    loss, held = run.change("train/loss"), run.values("heldout/loss")
    if loss is None:
        return True  # too short to say
    after = held[-1] if held else loss.last
    return after < loss.first - 2 * _error_of_first(loss)


def _error_of_first(loss: Change) -> float:
    """Standard error of the mean of the first window."""
    return loss.error / math.sqrt(2)


@rule(
    "worse than the start",
    reads=("samples.jsonl",),
    tries=(
        "lower trainer.learning_rate",
        "see whether the labels agree with the scorer (align data check, align evaluate --pairs)",
        "raise {tie}",
    ),
)
def worse_than_start(run: Course) -> str | None:
    """The trained model loses against the start model by the scorer that decides."""
    won = run.telling_win_rate
    if won is None or won[1].high is None or won[1].high >= 0.5:
        return None
    scores = run.change("rollout/objective/scores")
    if scores is not None and scores.last > scores.first:
        return None  # over-optimised
    return (
        f"held-out answers became worse by {won[0]}: the win rate over the start model is {won[1].percent('prompts')}"
    )
