"""Few-shot prompting: answered examples in front of every prompt."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from align.data.preferences import Preferences
from align.errors import UserError

__all__ = ["with_shots"]


def with_shots(prompts: Preferences, examples: Preferences, shots: int, *, seed: int = 0) -> Preferences:
    """Put the same ``shots`` examples, chosen by ``seed``, in front of every prompt; rows and their order are kept.

    An example is a single-turn prompt with its preferred response: turns of user and assistant before the prompt's own
    (after its system turn), or, in plain text, paragraphs before it.

    Raises:
        UserError: There are fewer examples of another prompt than ``shots``.
    """
    asked = {row["prompt_id"] for row in prompts}
    usable: dict[str, Mapping[str, Any]] = {}
    for row in examples:
        if len(row["prompt"]) == 1 and row["chosen"] and not row["tools"] and row["prompt_id"] not in asked:
            usable.setdefault(row["prompt_id"], row)
    if len(usable) < shots:
        raise UserError(
            f"{examples.report.source}: {len(usable)} single-turn examples that are not asked themselves, but "
            f"shots={shots}; lower it, or give more examples."
        )
    chosen = random.Random(seed).sample(list(usable.values()), shots)

    def rewrite(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        first = row["prompt"][0]
        if first["role"] is None:
            told = "".join(f"{shot['prompt'][0]['content']}{shot['chosen'][0]['content']}\n\n" for shot in chosen)
            return [{**row, "prompt": [{**first, "content": told + first["content"]}]}]
        start = 1 if first["role"] in ("system", "developer") else 0
        turns = [turn for shot in chosen for turn in (*shot["prompt"], *shot["chosen"])]
        return [{**row, "prompt": [*row["prompt"][:start], *turns, *row["prompt"][start:]]}]

    return prompts.rewritten(rewrite)
