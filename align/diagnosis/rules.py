"""All rules, in the order in which what they find is said: causes first, then what comes of them."""

from __future__ import annotations

from align.diagnosis import answers, drawing, learning
from align.diagnosis.course import Course
from align.diagnosis.rule import Finding, Rule

__all__ = ["RULES", "examine"]

RULES: tuple[Rule, ...] = (
    learning.failed,
    learning.labels_reversed,
    drawing.over_optimised,
    learning.learning_rate_too_high,
    drawing.constant_reward,
    learning.no_gradient,
    answers.never_ends,
    answers.far_from_reference,
    learning.likelihood_displacement,
    learning.worse_than_start,
    answers.looping_answers,
    answers.identical_responses,
    drawing.entropy_collapse,
    learning.overfitting,
    answers.length_drift,
    answers.cut_off,
    drawing.clipped,
    drawing.value_explains_nothing,
    learning.loss_at_ln2,
    learning.learning_rate_too_low,
    learning.nothing_learned,
)


def examine(course: Course) -> list[Finding]:
    """Return all that is unhealthy in a run so far."""
    found = (rule.find(course) for rule in RULES)
    return [finding for finding in found if finding is not None]
