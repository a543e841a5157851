"""The folders ``final/`` (all trained roles, with a model card) and ``best/`` (the policy of the best evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.runs.card import model_card
from align.system.files import new_folder, write_json
from align.world.shipped import FOLDER

if TYPE_CHECKING:
    from align.model.policy import Policy


def replace_policy(policy: Policy, folder: Path, merit: Mapping[str, Any]) -> None:
    """Write the policy over the one in ``folder``; ``merit.json`` records the step and its merit."""
    with new_folder(folder) as partial:
        policy.roles.save("policy", partial)
        policy.tokenizer.save_pretrained(partial)
        write_json(partial / "merit.json", merit)


def write_final(
    policy: Policy, folder: Path, settings: Mapping[str, Any], evaluation: Mapping[str, Any] | None
) -> None:
    """Write the trained roles with a model card."""
    with new_folder(folder) as partial:
        policy.save(partial)
        card = model_card(
            base=_name_of_base(policy), adapters=policy.uses_adapters, settings=settings, evaluation=evaluation
        )
        card.save(partial / "README.md")


def _name_of_base(policy: Policy) -> str:
    """Return the base as a user names it: ``world/…`` for an embedded one, wherever the package is installed."""
    name = str(policy.model.config.name_or_path)
    return f"world/{Path(name).name}" if Path(name).parent == FOLDER else name
