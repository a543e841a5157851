"""Scorers as a configuration names them: ``scorer: NAME`` and the settings of that scorer.

A setting that itself has ``scorer:`` is a scorer too, so that they nest::

    scorer: weighted_sum
    scorers:
      quality: {scorer: reward_model, model: runs/reward/final/reward}
      brevity: {scorer: length, maximum: 60}
    weights: {quality: 1.0, brevity: 0.2}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from align.errors import UserError, unreadable
from align.settings import registry
from align.settings.type_checks import build

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


YAML = (".yaml", ".yml")
"""Endings of files that describe a scorer."""


def make_scorer(settings: Mapping[str, Any], place: str = "reward") -> Scorer:
    """Make the scorer that ``settings`` describe; ``place`` is their key, for messages.

    Raises:
        UserError: There is no such scorer, or one of its settings is wrong.
    """
    name = settings.get("scorer")
    if not isinstance(name, str):
        raise UserError(f"{_key(place, 'scorer')} is missing: name one of {', '.join(registry.choices('scorers'))}.")
    try:
        cls: Any = registry.load("scorers", name)
    except UserError as error:
        raise UserError(f"{_key(place, 'scorer')}: {error}") from error
    values = {key: _made(value, _key(place, key)) for key, value in settings.items() if key != "scorer"}
    try:
        return build(cast("type[Any]", cls), values) if is_dataclass(cls) else cls(**values)
    except (UserError, TypeError) as error:
        raise UserError(f"{place} ({name}): {error}") from error


def _key(place: str, name: str) -> str:
    return f"{place}: {name}" if place.endswith(YAML) else f"{place}.{name}"


def _made(value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "scorer" in value:
        return make_scorer(value, place)
    return {key: _made(inner, f"{place}.{key}") for key, inner in value.items()}


def read_scorer(word: str) -> Scorer:
    """Make the scorer of a command-line word.

    It is a registered name, a YAML file with ``scorer:`` and its settings, or the folder of a reward model or of the
    run that trained it.

    Raises:
        UserError: No scorer has this name, the file cannot be read, or a setting is wrong.
    """
    if (folder := Path(word)).is_dir() and word not in registry.choices("scorers"):
        trained = folder / "final" / "reward"
        return make_scorer({"scorer": "reward_model", "model": str(trained if trained.is_dir() else folder)}, word)
    if word.endswith(YAML):
        return make_scorer(read_settings(word), word)
    try:
        registry.load("scorers", word)
    except UserError as error:
        raise UserError(f"{error} A scorer with settings is a YAML file (reward/README.md).") from error
    return make_scorer({"scorer": word}, word)


def settings_of(word: str) -> dict[str, Any]:
    """Return the settings that a word stands for: those in a YAML file, or a scorer's name alone.

    Raises:
        UserError: See `read_settings`.
    """
    return read_settings(word) if word.endswith(YAML) else {"scorer": word}


def read_settings(file: str) -> dict[str, Any]:
    """Read the settings of a scorer from a YAML file.

    Raises:
        UserError: The file cannot be read or has no ``scorer:``.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from align.settings.interpolation import resolved

    try:
        settings = resolved(OmegaConf.load(file))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{file}: {unreadable(error)}; give a YAML file with `scorer: NAME` and its settings."
        ) from error
    if not isinstance(settings, Mapping):
        raise UserError(f"{file} holds no settings; write `scorer: NAME` in it.")
    if "scorer" not in settings:
        raise UserError(f"{file}: `scorer:` is missing: name one of {', '.join(registry.choices('scorers'))}.")
    return {str(key): value for key, value in settings.items()}
