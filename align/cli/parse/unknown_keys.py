"""Checks of a composed configuration: known keys, values present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from align.errors import UserError, did_you_mean, nearest, slip_of

__all__ = ["SECTIONS", "check_additions", "check_complete", "check_key", "check_name", "is_known", "is_mapping"]

SECTIONS = ("method", "model", "adapter", "data", "trainer", "sampling", "evaluation", "reward", "wandb")
_ROOT = ("trackers", "run_name", "output_root", "if_exists", "resume_world_size", "dry_run", "stage", "seed")


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
        own = [name for name in _keys(known) if name.startswith("method.")]
        if key.removeprefix("method.") in _ANOTHER_METHOD and not slip_of(key, own):
            raise UserError(
                f"{key} is not a setting{place}; what other programs set with it is another method here: "
                "`align --help` says what each is for."
            )
        near, is_meant = _nearest(key, [*_keys(known), *choices])
        shown = " or ".join(f'"{name}"' for name in near)
        remedy = f" Did you mean {shown}?" if near else ""
        instead = {key: None, near[0]: value} if is_meant else {}
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
    "lr": "learning_rate",
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
    "beta": "lam",
    "pref_beta": "beta",
    "pref_loss": "loss_type",
    "simpo_gamma": "gamma_ratio",
    "kto_chosen_weight": "desirable_weight",
    "kto_rejected_weight": "undesirable_weight",
    "use_weighting": "wpo",
    "sync_ref_model": "sync_steps",
    "ref_model_sync_steps": "sync_steps",
    "ref_model_mixup_alpha": "sync_weight",
    "f_divergence_type": "divergence",
    "num_generations": "responses",
    "rloo_k": "responses",
    "num_iterations": "epochs",
    "num_ppo_epochs": "epochs",
    "num_mini_batches": "minibatches",
    "cliprange": "clip",
    "epsilon": "clip",
    "epsilon_high": "clip_high",
    "scale_rewards": "group_scale",
    "response_length": "max_new_tokens",
    "max_completion_length": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "dataset": "train",
    "model_name_or_path": "name",
}
"""Names of settings in other programs → the last part of ours."""
_OTHER_VALUES = frozenset(
    {
        *("bf16", "kl_coef", "per_device_train_batch_size", "pref_loss", "simpo_gamma", "sync_ref_model"),
        *("f_divergence_type", "scale_rewards"),
    }
)
"""Those of which a value is not one of ours: true, another scale, a number for each device."""


_ANOTHER_METHOD = frozenset({"loss_type", "importance_sampling_level", "reference_free"})
"""Settings with which other programs choose between what are methods here."""


def _nearest(key: str, keys: Iterable[str]) -> tuple[list[str], bool]:
    """Return the keys that may be meant, and whether the first surely is: a slip or another program's name for it.

    In another section than the one typed, only the same name is the same thing.
    """
    section, _, typed = key.rpartition(".")
    name = _ELSEWHERE.get(typed, typed)
    own: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for known in sorted(key for key in keys if key != "method.name" and not key.startswith("data.columns.")):
        place, _, last = known.rpartition(".")
        if place == section:
            own[last] = known
        else:
            others.setdefault(last, []).append(known)
    if found := own.get(name) or own.get(slip_of(typed, own) or ""):
        return [found], typed not in _OTHER_VALUES
    if name in others:
        return others[name], False
    if found := own.get(nearest(typed, own) or ""):
        return [found], False
    return others.get(nearest(typed, others, 0.8) or "", []) if not section else [], False
