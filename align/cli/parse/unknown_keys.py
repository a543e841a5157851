"""Checks of a composed configuration: known keys, values present, types of a method's settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from align.errors import UserError, did_you_mean
from align.settings.type_checks import Shape

__all__ = ["SECTIONS", "check_additions", "check_complete", "check_keys", "check_method", "is_mapping"]

SECTIONS = ("method", "model", "adapter", "data", "trainer", "evaluation", "reward", "wandb")
_ROOT = ("trackers", "run_name", "output_root", "if_exists", "dry_run", "stage", "seed")


def is_mapping(key: str) -> bool:
    """Return whether a key is a mapping that may be given whole, or a name in one whose names are the user's."""
    return key in ("data.columns", "model.chat_template_kwargs") or key.startswith("model.chat_template_kwargs.")


def check_keys(known: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Raise where one of `overrides` sets a key that is not in the configuration `known`."""
    keys = [key for key, _ in _leaves(known)]
    for override in overrides:
        key = override.partition("=")[0]
        if key in SECTIONS:
            raise UserError(f"{key} is a group of settings: write {key}.KEY=VALUE.")
        if key not in keys and not is_mapping(key):
            section = key.partition(".")[0]
            place = f" of {section}={choices[section]}" if section in choices else ""
            raise UserError(f"{key} is not a setting{place}.{_nearest(key, [*keys, *choices])}")


def check_additions(plain: Mapping[str, Any]) -> None:
    """Raise where a YAML file adds a section that does not exist, or names a class."""
    for name in plain:
        if name not in (*SECTIONS, *_ROOT):
            raise UserError(f"{name} is not a setting.{did_you_mean(name, (*SECTIONS, *_ROOT))}")
    for key, _ in _leaves(plain):
        if "_target_" in key:
            raise UserError(f"{key}: classes are chosen by name, _target_ is not accepted.")


def check_complete(plain: Mapping[str, Any]) -> None:
    """Raise where a value that has no default is missing."""
    for key, value in _leaves(plain):
        if value == "???":
            hint = {
                "model.name": "a folder or a Hugging Face name",
                "data.train": "a file, a datasets folder or a Hugging Face name",
            }.get(key, "it has no default")
            raise UserError(f"{key} is missing: give {key}=…, {hint}.")


def check_method(choice: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise where a value cannot be right, by the type of its default; the class, which imports PyTorch, decides."""
    if given["name"] != known["name"]:
        raise UserError(f"method.name belongs to method={choice}: write method={given['name']} to choose.")
    changed = [name for name, default in known.items() if default not in (None, "???") and given[name] != default]
    kinds = {name: float if type(known[name]) is int else type(known[name]) for name in changed}
    try:
        Shape(choice, kinds).check({name: given[name] for name in changed})
    except UserError as error:
        raise UserError(f"method.{error}") from error


def _leaves(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def _nearest(key: str, keys: Iterable[str]) -> str:
    """Suggest a key by its last part, or its initials (``lr``): in its own section first, then anywhere."""
    typed_section, _, typed = key.rpartition(".")
    suggestable = sorted(key for key in keys if key != "method.name")
    own = [candidate for candidate in suggestable if candidate.rpartition(".")[0] == typed_section]
    for candidates in (own, suggestable):
        by_last = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
        by_initials = {"".join(word[0] for word in last.split("_")): full for last, full in by_last.items()}
        near = re.search(r'"(.*)"', did_you_mean(typed, by_last))
        found = by_last.get(typed) or by_initials.get(typed) or (by_last[near[1]] if near else None)
        if found:
            return f' Did you mean "{found}"?'
    return ""
