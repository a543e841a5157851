"""Reads the file of a recipe: its stages, where they begin, and their settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from yaml import YAMLError

from align.cli.parse.unknown_keys import SECTIONS
from align.errors import UserError, did_you_mean, first_line

__all__ = ["RecipeFile", "read_recipe"]

_KEYS = ("stages", "from_base", "settings")
_MISSING = "???"


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """The checked content of ``configs/recipe/<name>.yaml``."""

    stages: tuple[str, ...]
    """Names, in the order of training."""
    methods: Mapping[str, str]
    """Method of each stage, by name."""
    from_base: bool
    """Stages begin from the pretrained model, not from the adapter of ``model.start``."""
    settings: Mapping[str, Sequence[str]]
    """By stage, as words: ``trainer.epochs=15``."""
    missing: tuple[str, ...]
    """Settings that must be typed: ``intermediate.data.train``."""


def read_recipe(configs: Path, recipe: str) -> RecipeFile:
    """Read the file of a recipe.

    Raises:
        UserError: It has unknown keys, or stages and settings that do not fit together.
    """
    try:
        content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(configs / "recipe" / f"{recipe}.yaml")))
    except YAMLError as error:
        raise UserError(f"recipe={recipe}: its file cannot be read: {first_line(error)}.") from error
    if unknown := [key for key in content if key not in _KEYS]:
        raise UserError(f"recipe={recipe}: its file has no place for {unknown[0]}.{did_you_mean(unknown[0], _KEYS)}")
    if "from_base" not in content:
        raise UserError(
            f"recipe={recipe}: add `from_base: true` (begin from model.name alone) or `from_base: false` (from "
            f"model.start) to its file."
        )
    named = [_stage(recipe, entry) for entry in content.get("stages") or []]
    if not named:
        raise UserError(f"recipe={recipe}: its file lists no stages; add `stages: [METHOD, METHOD]`.")
    methods = dict(named)
    if clash := [name for name, method in named if methods[name] != method]:
        raise UserError(f"recipe={recipe}: two stages of different methods have the name {clash[0]}.")
    settings: dict[str, dict[str, Any]] = content.get("settings") or {}
    if strange := [stage for stage in settings if stage not in methods]:
        raise UserError(f"recipe={recipe}: it has settings of {strange[0]}, but its stages are {', '.join(methods)}.")
    return RecipeFile(
        stages=tuple(name for name, _ in named),
        methods=methods,
        from_base=content["from_base"],
        settings={
            stage: [f"{key}={_word(value)}" for key, value in own.items() if value != _MISSING]
            for stage, own in settings.items()
        },
        missing=tuple(
            f"{stage}.{key}" for stage, own in settings.items() for key, value in own.items() if value == _MISSING
        ),
    )


def _stage(recipe: str, entry: Any) -> tuple[str, str]:
    """Return name and method of an entry, which is a method or ``{name: …, method: …}``."""
    if isinstance(entry, str):
        return entry, entry
    if not isinstance(entry, dict) or set(cast("dict[str, Any]", entry)) != {"name", "method"}:
        raise UserError(f"recipe={recipe}: a stage is a method or {{name: NAME, method: METHOD}}, not {entry}.")
    name, method = str(entry["name"]), str(entry["method"])
    if not name.isidentifier() or name in SECTIONS:
        raise UserError(f"recipe={recipe}: {name!r} cannot be the name of a stage; take one word of letters.")
    return name, method


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
