"""All rules, in the order in which what they find is said: the gravest first."""

from __future__ import annotations

from align.diagnosis import answers, drawing, learning
from align.diagnosis.course import Course
from align.diagnosis.rule import Finding, Rule

__all__ = ["RULES", "examine"]

RULES: tuple[Rule, ...] = (
    learning.labels_reversed,
    drawing.over_optimised,
    learning.worse_than_start,
    learning.learning_rate_too_high,
    drawing.constant_reward,
    answers.never_ends,
    answers.looping_answers,
    answers.identical_responses,
    answers.far_from_reference,
    drawing.entropy_collapse,
    learning.overfitting,
    learning.likelihood_displacement,
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
