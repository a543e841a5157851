"""Checks of a composed configuration: known keys, values present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from align.errors import UserError, did_you_mean, nearest

__all__ = ["SECTIONS", "check_additions", "check_complete", "check_key", "check_name", "is_known", "is_mapping"]

SECTIONS = ("method", "model", "adapter", "data", "trainer", "evaluation", "reward", "wandb")
_ROOT = ("trackers", "run_name", "output_root", "if_exists", "dry_run", "stage", "seed")


def is_mapping(key: str) -> bool:
    """Return whether a key is a mapping that may be given whole, or a name in one whose names are the user's."""
    return key in ("data.columns", "model.chat_template_kwargs") or key.startswith("model.chat_template_kwargs.")


def check_key(word: str, known: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Raise where a word sets a key that is not in the configuration `known`."""
    key, _, value = word.partition("=")
    if key in SECTIONS:
        raise UserError(f"{key} is a group of settings: write {key}.KEY=VALUE.")
    if not is_known(word, known):
        section = key.partition(".")[0]
        place = f" of {section}={choices[section]}" if section in choices else ""
        if key.startswith("data.columns."):
            columns = list(known["data"]["columns"])
            raise UserError(f"{key}: none of the columns {', '.join(columns)}.{did_you_mean(key[13:], columns)}")
        near = _nearest(key, [*_keys(known), *choices])
        instead = {key: None, near: value} if near else {}
        remedy = f' Did you mean "{near}"?' if near else ""
        raise UserError(f"{key} is not a setting{place}.{remedy}", instead=instead)


def is_known(word: str, known: Mapping[str, Any]) -> bool:
    """Return whether the configuration has the key of a word."""
    key = word.partition("=")[0]
    return key in _keys(known) or is_mapping(key)


def _keys(known: Mapping[str, Any]) -> list[str]:
    return [key for key, _ in _leaves(known)]


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


def check_name(choice: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise where the name inside the settings of a method is another one than the method chosen."""
    if given["name"] != known["name"]:
        raise UserError(f"method.name belongs to method={choice}: write method={given['name']} to choose.")


def _leaves(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{place}{name}.")
        else:
            yield f"{place}{name}", value


_ELSEWHERE = {
    "rank": "r",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "cutoff_len": "max_length",
    "per_device_train_batch_size": "batch_size",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "bf16": "precision",
    "kl_coef": "beta",
    "max_tokens": "max_new_tokens",
    "dataset": "train",
    "path": "name",
}
"""Names of settings in other programs → the last part of ours."""


def _nearest(key: str, keys: Iterable[str]) -> str | None:
    """Return a key with the same last part, its initials (``lr``) or its name elsewhere; a similar one if it is near.

    Its own section comes first. In another one a similar name is as a rule another thing.
    """
    typed_section, _, typed = key.rpartition(".")
    suggestable = sorted(key for key in keys if key != "method.name")
    own = [candidate for candidate in suggestable if candidate.rpartition(".")[0] == typed_section]
    others = [candidate for candidate in suggestable if not candidate.startswith("data.columns.")]
    for candidates, cutoff in ((own, 0.6), (others, 0.8)):
        by_last = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
        by_initials = {"".join(word[0] for word in last.split("_")): full for last, full in by_last.items()}
        near = nearest(typed, by_last, cutoff)
        renamed = by_last.get(_ELSEWHERE.get(typed, ""))
        if found := by_last.get(typed) or by_initials.get(typed) or renamed or (by_last[near] if near else None):
            return found
    return None
