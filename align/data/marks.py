"""Marks on a single answer: that it is not to be trained on, or that it is a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.data.load_report import RowError
from align.data.unread import is_true_or_false, parts, verdicts
from align.data.words import LABELS, SCORES, SIDES, WORSE, words_of

__all__ = ["is_learned", "is_mark", "require_agreeing", "require_good", "require_learned", "require_no_part"]

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


def require_agreeing(chosen: Mapping[str, Any], rejected: Mapping[str, Any]) -> None:
    """Raise `RowError` if both sides of a pair have a label or a score, and the rejected one has the better."""
    if len(chosen) == 2:  # role and content, as nearly all have
        return
    for name in chosen.keys() & rejected.keys() - _CONTENT:
        words = words_of(name)
        if (LABELS | SCORES | SIDES | _AGAINST).isdisjoint(words):
            continue
        good, bad = _worth(chosen[name]), _worth(rejected[name])
        if good is not None and bad is not None and good != bad:
            lower = sum(word in _AGAINST | {"rank", "loss"} for word in words) % 2 == 1
            if (good > bad) == lower:
                raise RowError(f'message field "{name}" says that the rejected side is the better one')


def _worth(value: object) -> float | None:
    """Return a number or a boolean as a number; None for anything else."""
    if is_true_or_false(value):
        return float(_TRUTH[str(value).strip().lower()])
    return float(value) if isinstance(value, int | float) else None


def require_no_part(asked: Mapping[str, Any], name: str) -> None:
    """Raise `RowError` if a message of a prompt has texts beside its content that may be a part of it."""
    for key, value in asked.items():
        if key in _CONTENT or not isinstance(value, str | list | Mapping) or value in ("", [], {}):
            continue
        if found := parts(key, [value], any_text=True):
            raise RowError(
                f'field "{found[0]}" of {name} may be a part of the prompt; put it in the text, or remove it'
            )
