"""Marks on a single answer: that it is not to be trained on, or that it is a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.data.load_report import RowError
from align.data.unread import is_true_or_false, verdicts
from align.data.words import LABELS, SCORES, SIDES, WORSE, words_of

__all__ = ["is_learned", "is_mark", "require_good", "require_learned"]

_LEARNED = frozenset({"is_train", "is_trained", "learn", "loss", "loss_mask", "loss_scale", "loss_weight"}) | {
    *("train", "train_on", "train_on_turn", "trainable", "trained", "training", "weight")
}
_MASKED = frozenset({"ignore", "ignore_loss", "ignored", "is_masked", "mask", "masked", "no_loss", "no_train"})
_CONTENT = frozenset({"role", "content", "from", "value", "input", "output", "function_call", "tool_calls"})
_TRUTH = {"true": True, "false": False}
_AGAINST = WORSE | {
    "disliked",
    "error",
    "failed",
    "flagged",
    "harmful",
    "not",
    "spam",
    "toxic",
    "undesirable",
    "unsafe",
}


def is_mark(name: str) -> bool:
    """Return whether a field says if its answer is trained on: ``weight`` (OpenAI), ``train``, ``masked`` …"""
    return "_".join(words_of(name)) in _LEARNED | _MASKED


def is_learned(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer may be trained on, as far as its marks say so.

    Raises:
        RowError: A mark is neither 0 nor 1.
    """
    if _unlearned(answer):
        return False
    try:
        require_good(answer)
    except RowError:
        return False
    return True


def require_learned(answer: Mapping[str, Any]) -> None:
    """Raise `RowError` if an answer is marked as one that is not trained on."""
    if mark := _unlearned(answer):
        raise RowError(f"the answer is marked {mark}: not to be learned")


def _unlearned(answer: Mapping[str, Any]) -> str:
    """Return the mark of an answer that is not trained on, as in ``weight=0``; nothing if there is none."""
    for name, value in answer.items():
        if not is_mark(name) or value in (None, ""):
            continue
        text = str(value).strip().lower()
        if text not in ("true", "false", "0", "1", "0.0", "1.0"):
            raise RowError(f'message field "{name}" is neither 0 nor 1', f"is {value!r:.40}")
        if (text in ("true", "1", "1.0")) == ("_".join(words_of(name)) in _MASKED):
            return f"{name}={value if isinstance(value, str) else text}"
    return ""


def require_good(answer: Mapping[str, Any]) -> None:
    """Raise `RowError` if an answer to imitate is marked as a bad one, or in a way that may mean it."""
    for name, value in answer.items():
        if name in _CONTENT or is_mark(name) or value in (None, "", [], {}):
            continue
        words = words_of(name)
        if is_true_or_false(value) and not (LABELS | SCORES | SIDES | _AGAINST).isdisjoint(words):
            against = sum(word in _AGAINST for word in words) % 2 == 1
            if _TRUTH[str(value).strip().lower()] == against:
                raise RowError(f"the answer is marked {name}={str(value).lower()}: a bad one")
        elif said := verdicts(name, [value]):
            raise RowError(
                f'message field "{said[0]}" may say how good the answer is; remove it, or give a column `label`'
            )
