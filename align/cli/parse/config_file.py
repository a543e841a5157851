"""``-c FILE.yaml``: a whole configuration, as a run leaves it, or a part of one, as the words that would be typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from align.cli.parse import groups
from align.errors import UserError, unreadable

__all__ = ["REWARD_OF_FILE", "words_of_file"]

REWARD_OF_FILE = "of_file"
"""The choice of ``reward=`` that stands for the scorer in the file."""

_OF_THE_RUN = ("resolved", "if_exists", "resume_world_size", "dry_run")
"""Not what was asked for, or only for that once."""
_CUSTOM = ("model", "data")
"""Groups whose choice is the custom one where a mapping is given."""
_LENGTH = ("trainer.steps", "trainer.epochs")


def words_of_file(file: str, typed: Sequence[str], configs: Path) -> list[str]:
    """Return the words that say what the file does, without those that the `typed` ones replace.

    Raises:
        UserError: The file cannot be read, or a secret was left out when it was written.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"-c {file}: {unreadable(error)}; give settings in YAML, such as runs/NAME/config.yaml."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"-c {file}: it holds no settings (KEY: VALUE).")
    keys = {word.lstrip("+").partition("=")[0] for word in typed}
    if keys & set(_LENGTH):
        keys |= set(_LENGTH)
    words = [*_words(cast("dict[str, Any]", content))]
    kept = [(key, value) for key, value in words if not _is_replaced(key, keys, configs)]
    if hidden := [key for key, value in kept if value == "***"]:
        raise UserError(f"-c {file}: {hidden[0]} is a secret that was not written down; add {hidden[0]}=….")
    return [f"{key}={_written(value)}" for key, value in kept]


def _is_replaced(key: str, typed: set[str], configs: Path) -> bool:
    """Return whether a typed word sets this key, a part of it, or chooses the group it is in."""
    section = key.partition(".")[0]
    return key in typed or (section in typed and section in groups.names(configs))


def _words(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each word."""
    for name, value in content.items():
        if name in _OF_THE_RUN:
            continue
        if not isinstance(value, dict):
            if name == "adapter" and value is None:
                yield name, "none"
            elif not (name in groups.OPTIONAL and value is None):
                yield name, value
            continue
        settings = cast("dict[str, Any]", value)
        if name == "reward" and "scorer" in settings:
            ConfigStore.instance().store(group="reward", name=REWARD_OF_FILE, node=settings)
            yield "reward", REWARD_OF_FILE
            continue
        if name == "method" and "name" in settings:
            yield "method", settings["name"]
            settings = {key: inner for key, inner in settings.items() if key != "name"}
        elif name in _CUSTOM and ({"name", "train"} & settings.keys()):
            yield name, "custom"
        for key, inner in _leaves(settings, f"{name}."):
            if key != "trainer.seed":  # the run's own, which is also `seed`
                yield key, inner


def _leaves(values: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and name == "columns":
            yield from _leaves(cast("dict[str, Any]", value), f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def _written(value: Any) -> str:
    """Write a value in the grammar of overrides: JSON, but text in it needs quotes of its own."""
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w./:-]*", value) and value.lower() not in ("true", "false", "null", "nan", "inf"):
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if value else "''"
    if isinstance(value, dict):
        inner = (f"{key}: {_written(item)}" for key, item in cast("dict[str, Any]", value).items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, cast("list[Any]", value))) + "]"
    return json.dumps(value)
