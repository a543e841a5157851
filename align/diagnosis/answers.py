"""Rules on the answers themselves, of roll-outs and held-out: distance, length, end, repetition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from align.diagnosis.course import FEWEST_ANSWERS, Course
from align.diagnosis.rule import rule

if TYPE_CHECKING:
    from align.evaluation.measurement import Sample

KL_BOUND = 20.0  # nats per response
LENGTH_DRIFT = 1.5  # times the length at the start, or the inverse
CUT_OFF, NEVER_ENDS = 0.5, 0.95  # shares of responses without an end
IDENTICAL, MORE_IDENTICAL = 0.5, 1.5  # share of responses; times that at the start
LOOPING, LOOP_WORDS, LOOP_DISTINCT = 0.2, 20, 1 / 3  # share of responses; words; distinct word pairs of all


@rule(
    "kl",
    reads=("rollout/objective/kl", "evaluation/kl"),
    tries=("raise {tie}", "set method.kl_target", "lower trainer.learning_rate"),
)
def far_from_reference(run: Course) -> str | None:
    """The policy has left the reference; held-out answers count where the method has a tie to it."""
    kl, of = run.last("rollout/objective/kl"), "rolled-out"
    if kl is None and run.resolved.get("tie") and (measured := run.held_out("kl")) is not None:
        kl, of = measured[1].mean, "held-out"
    if kl is None or kl <= KL_BOUND:
        return None
    return f"the policy is {kl:.1f} nats per {of} response away from its reference (healthy: below {KL_BOUND:.0f})"


@rule(
    "length",
    reads=("rollout/tokens/lengths", "evaluation/response_length", "train/tokens_per_response"),
    tries=(
        "look at samples.jsonl: the reward or the labels may pay for length",
        "correct the reward (scorer length_corrected, method.overlong_buffer)",
        "raise {tie}",
    ),
)
def length_drift(run: Course) -> str | None:
    """Responses became longer or shorter; a method that imitates responses may come as near to their length."""
    before, now = run.first("rollout/tokens/lengths"), run.last("rollout/tokens/lengths")
    if before is None or now is None:
        measured = run.held_out("response_length")
        if measured is None or measured[1].n < FEWEST_ANSWERS:
            return None
        old, new = measured
        overlap = (old.low or 0) <= (new.high or 0) and (new.low or 0) <= (old.high or 0)
        imitated = run.first("train/tokens_per_response")
        towards = imitated is not None and abs(new.mean - imitated) <= abs(old.mean - imitated)
        if overlap or towards:
            return None
        before, now = old.mean, new.mean
    if 1 / LENGTH_DRIFT <= now / before <= LENGTH_DRIFT:
        return None
    return f"responses went from {before:.0f} to {now:.0f} tokens"


def _unended(run: Course) -> tuple[float, str, str] | None:
    """Share of responses without an end, whose they are, and the setting that cuts them."""
    ended = run.last("rollout/val/num_eos_tokens")
    if ended is not None:
        return 1 - ended, "responses", "method.max_new_tokens"
    samples = _after(run)
    share = run.cut_off(samples) if samples else None
    return None if share is None else (share, "held-out answers", "evaluation.max_new_tokens")


def _after(run: Course) -> Sequence[Sample]:
    """The latest held-out answers, if there are enough."""
    found = run.answers[1].samples if run.answers is not None else ()
    return found if len(found) >= FEWEST_ANSWERS else ()


@rule(
    "no end",
    reads=("rollout/val/num_eos_tokens", "samples.jsonl"),
    tries=(
        "raise max_new_tokens if the answers are only long",
        "see with align data show whether trained responses end with the end-of-turn token (model.chat_template)",
        "penalise them (method.missing_eos, method.overlong_buffer)",
    ),
)
def never_ends(run: Course) -> str | None:
    """The end-of-turn token is never drawn."""
    found = _unended(run)
    if found is None or found[0] < NEVER_ENDS:
        return None
    return f"{found[0]:.0%} of the {found[1]} never end ({found[2]} cuts them)"


@rule(
    "cut off",
    reads=("rollout/val/num_eos_tokens", "samples.jsonl"),
    tries=(
        "raise method.max_new_tokens",
        "raise evaluation.max_new_tokens",
        "penalise them (method.missing_eos, method.overlong_buffer)",
    ),
)
def cut_off(run: Course) -> str | None:
    """Most responses are cut off before they end."""
    found = _unended(run)
    if found is None or not CUT_OFF < found[0] < NEVER_ENDS:
        return None
    return f"{found[0]:.0%} of the {found[1]} are cut off at {found[2]}"


@rule(
    "identical",
    reads=("rollout/identical", "samples.jsonl"),
    tries=("raise method.temperature", "raise {tie}", "lower trainer.learning_rate"),
)
def identical_responses(run: Course) -> str | None:
    """The policy repeats a few responses, whatever the prompt."""
    before, now, of = run.first("rollout/identical"), run.last("rollout/identical"), "responses of a roll-out"
    if (before is None or now is None) and run.answers is not None and _after(run):
        before, now = (_identical(measured.samples) for measured in run.answers)
        of = "held-out answers"
    if before is None or now is None or now <= IDENTICAL or now <= MORE_IDENTICAL * before:
        return None
    return f"{now:.0%} of the {of} are repeated word for word (at the start {before:.0%})"


def _identical(samples: Sequence[Sample]) -> float:
    """Share of the answers that are given to more than one prompt."""
    seen = Counter(sample.response for sample in samples)
    return sum(count for count in seen.values() if count > 1) / len(samples)


@rule(
    "loops",
    reads=("samples.jsonl",),
    tries=("lower trainer.learning_rate", "raise {tie}", "take fewer epochs (trainer.epochs)"),
)
def looping_answers(run: Course) -> str | None:
    """Long answers say the same words again and again."""
    if run.answers is None or not _after(run):
        return None
    before, now = (_looping(measured.samples) for measured in run.answers)
    if now <= LOOPING or now <= 2 * before:
        return None
    return f"{now:.0%} of the held-out answers repeat the same words in a loop (at the start {before:.0%})"


def _looping(samples: Sequence[Sample]) -> float:
    """Share of the answers of some length of whose word pairs most occur again in them."""
    count = 0
    for words in (sample.response.split() for sample in samples):
        pairs = list(pairwise(words))
        count += len(words) >= LOOP_WORDS and len(set(pairs)) < LOOP_DISTINCT * len(pairs)
    return count / len(samples)
