"""All checks, in the order in which they are made: causes first, then what needs more of the run."""

from __future__ import annotations

from align.doctor import machine, text, weights
from align.doctor.check import Check

__all__ = ["CHECKS", "FREE"]

CHECKS: tuple[Check, ...] = (
    machine.versions,
    machine.device,
    machine.precision,
    machine.accelerate,
    machine.settings,
    machine.folder,
    machine.tracking,
    machine.hub,
    weights.architecture,
    text.positions,
    weights.files,
    weights.targets,
    weights.sharding,
    machine.disk,
    text.data,
    text.heldout,
    text.rewards,
    text.template,
    text.pad_token,
    text.vocabulary,
    text.tokens,
    text.round_trip,
    text.beginning,
    text.prefix,
    text.end_learnt,
    text.end_drawn,
    text.control_tokens,
    text.unknown_tokens,
    text.truncation,
    text.answer_room,
    text.plan,
    text.steps,
    text.method,
    weights.memory,
    weights.weights,
    weights.layout,
    weights.packing,
    weights.padding,
    weights.reference,
    weights.dropout,
    weights.drawing,
    weights.forward_backward,
    weights.gradients,
    weights.seconds,
)

FREE: tuple[Check, ...] = tuple(one for one in CHECKS if one.free)
"""Those that also run before each training."""
