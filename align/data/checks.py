"""Checks between data sets."""

from __future__ import annotations

from align.data.preferences import Preferences
from align.data.schema import prompt_key

__all__ = ["leaked_prompts"]


def leaked_prompts(train: Preferences, heldout: Preferences) -> list[str]:
    """Return the places (file:line) of the rows of `heldout` whose prompt also occurs in `train`."""
    seen = {prompt_key(prompt) for prompt in train.dataset["prompt"]}
    return [
        place
        for prompt, place in zip(heldout.dataset["prompt"], heldout.dataset["place"], strict=True)
        if prompt_key(prompt) in seen
    ]
