"""The folders ``final/`` (all trained roles, with a model card) and ``best/`` (the policy of the best evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.model.naming import portable_name
from align.runs.card import Origin, model_card, reward_card, start_card
from align.system.files import new_folder, write_json, write_text

if TYPE_CHECKING:
    from align.method.base import Method
    from align.model.policy import Policy


def replace_policy(policy: Policy, folder: Path, merit: Mapping[str, Any]) -> None:
    """Write the policy over the one in ``folder``; ``merit.json`` records the step and its merit."""
    with new_folder(folder) as partial:
        policy.roles.save("policy", partial)
        policy.tokenizer.save_pretrained(partial)
        write_json(partial / "merit.json", merit)


def write_final(
    policy: Policy,
    folder: Path,
    method: Method,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    origin: Origin,
) -> None:
    """Write the roles with a model card, and a reward role that was trained with the card of its own.

    Args:
        policy: The trained policy.
        folder: ``final/`` of the run.
        method: It was trained with.
        settings: The method's ``name`` and every setting of the run.
        evaluation: The content of ``evaluation.json``, where there is one.
        origin: The data and the reward.
    """
    base = portable_name(str(policy.model.config.name_or_path), folder.parent)
    trained: dict[str, Any] = {
        "base": base,
        "adapters": policy.uses_adapters,
        "settings": settings,
        "evaluation": evaluation,
        "purpose": (type(method).__doc__ or "").partition("\n")[0],
        "origin": origin,
    }
    with new_folder(folder) as partial:
        policy.save(partial)
        if "policy" in method.trains:
            card = model_card(**trained, chat=policy.tokenizer.chat_template is not None, answers=method.generates)
        else:
            card = start_card(base=base, adapters=policy.uses_adapters, trained=method.trains)
        write_text(partial / "README.md", str(card))
        if "reward" in method.trains:
            write_text(partial / "reward" / "README.md", str(reward_card(**trained)))
