"""The folders ``final/`` and ``best/`` of a run: trained roles with tokenizer and model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.runs.card import model_card
from align.system.files import write_json

if TYPE_CHECKING:
    from align.model.policy import Policy


def replace_policy(policy: Policy, folder: Path, merit: Mapping[str, Any]) -> None:
    """Write the policy over the one in ``folder``, with what it was chosen by in ``merit.json``; never half of it."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    policy.roles.save("policy", partial)
    policy.tokenizer.save_pretrained(partial)
    write_json(partial / "merit.json", merit)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_final(
    policy: Policy, folder: Path, settings: Mapping[str, Any], evaluation: Mapping[str, Any] | None
) -> None:
    """Write the trained roles with a model card; the folder is complete or not there."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    card = model_card(
        base=str(policy.model.config.name_or_path),
        adapters=policy.uses_adapters,
        settings=settings,
        evaluation=evaluation,
    )
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
