"""Reads the words of the command line and refuses those that cannot be right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from align.cli.parse import groups
from align.cli.parse.config_file import REWARD_OF_FILE, words_of_file
from align.errors import Mistakes, UserError, did_you_mean, nearest, slip_of
from align.scoring.from_config import YAML, read_settings
from align.settings import registry
from align.settings.type_checks import defaults

__all__ = ["Command", "quoted_columns", "read_command"]

_MULTIRUN = ("-m", "--multirun")
_CONFIG = ("-c", "--config")
_HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.")
# A model or data of your own, named by this key, imply the group's choice `custom`.
_CUSTOM_KEYS = {"model": "name", "data": "train"}


@dataclass(frozen=True, kw_only=True)
class Command:
    """The words typed, sorted."""

    multirun: bool = False
    overrides: tuple[str, ...] = ()  # key=value, without leading plus signs
    swept: tuple[str, ...] = ()  # keys with several values (multirun)


def read_command(words: Sequence[str], configs: Path) -> Command:
    """Sort `words` into options and overrides.

    Raises:
        UserError: A word that no configuration could accept.
    """
    words = _with_files(words, configs)
    flags = [word for word in words if word.startswith("-")]
    mistakes = Mistakes()
    for flag in flags:
        if flag not in _MULTIRUN:
            remedy = did_you_mean(flag, ("--help", *_MULTIRUN, *_CONFIG))
            with mistakes.noted():
                raise UserError(f"{flag!a} is not an option; settings are written key=value.{remedy}")
    overrides: list[Override] = []
    for word in words:
        if word not in flags:
            with mistakes.noted():
                overrides.append(_parse(word, configs))
    swept = [override for override in overrides if override.is_sweep_override()]
    if swept and not flags:
        mistakes.require_none()
        raise UserError(
            f"{swept[0].input_line} gives several values: add -m for one run each, "
            "or put a value that contains a comma between quotes."
        )
    own = _own_choices(overrides, configs, mistakes)
    mistakes.require_none()
    return Command(
        multirun=bool(flags),
        overrides=tuple(own),
        swept=tuple(override.key_or_group for override in swept),
    )


def _with_files(words: Sequence[str], configs: Path) -> list[str]:
    """Put the words of the files that ``-c FILE`` names before those that are typed."""
    typed, files, left = list[str](), list[str](), iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag not in _CONFIG:
            typed.append(word)
        elif file := value if equals else next(left, ""):
            files.append(file)
        else:
            raise UserError(f"{word} needs a file: {word} runs/NAME/config.yaml.")
    return [*(word for file in files for word in words_of_file(file, typed, configs)), *typed]


def _parse(word: str, configs: Path) -> Override:
    if "_target_" in word:
        raise UserError(f"{word!a}: classes are chosen by name, _target_ is not accepted.")
    if "=" not in word and not word.startswith("~"):
        raise UserError(f"{word!a} is not a setting: write key=value.{_nearest_key(word, configs)}")
    if word.startswith("~"):
        raise UserError(f"{word!a}: a key cannot be removed; set it to null or to its default.")
    try:
        # `+key` and `++key` mean the same as `key`: nothing can be added that is not there already.
        override = OverridesParser.create().parse_override(word.lstrip("+"))
    except HydraException:
        if quoted := quoted_columns(word):
            raise UserError(f"{word!a} cannot be read: a path or name of a column needs quotes: {quoted}") from None
        raise UserError(
            f"{word!a} cannot be read: write key=value, and put a value with blanks, commas, brackets or "
            "quotes between quotes that the shell leaves in place, as in 'key=\"a, b\"'."
        ) from None
    assert override.type is OverrideType.CHANGE
    if override.package is not None:
        raise UserError(f"{word!a}: write group=choice without a package.")
    key = override.key_or_group
    if re.match(r"hydra\b", key) and not key.startswith(_HYDRA_KEYS):
        raise UserError(f"{key} is fixed; of Hydra's own settings hydra/launcher and hydra.launcher.KEY can be set.")
    return override


def _nearest_key(word: str, configs: Path) -> str:
    return did_you_mean(f"{word}=", [f"{group}=" for group in groups.names(configs)])


def quoted_columns(word: str) -> str | None:
    """Return ``data.columns=…`` with quotes around each column, as typed into a shell; None where it is not that."""
    key, _, value = word.partition("=")
    if re.fullmatch(r"\+*data\.columns(\.\w+)?", key) is None:
        return None
    if value.startswith("{"):
        quoted = re.sub(r"(?<=[{,])( *\w+ *: *)([^\s\"',{}][^\"',{}]*?)(?= *[,}])", r'\1"\2"', value)
    else:
        quoted = '"' + value.strip("\"'") + '"'
    try:
        OverridesParser.create().parse_override(f"{key}={quoted}")
    except HydraException:
        return None
    return f"{key}={shlex.quote(quoted)}"


def _own_choices(overrides: list[Override], configs: Path, mistakes: Mistakes) -> list[str]:
    """Check the choices of groups; turn ``model=FOLDER`` into ``model=custom model.name=FOLDER``."""
    texts: list[str] = []
    chosen = {override.key_or_group for override in overrides}
    for override in overrides:
        key, text = override.key_or_group, (override.input_line or "").strip()
        section, _, name = key.partition(".")
        if key in groups.names(configs):
            with mistakes.noted():
                texts.extend(_choice(key, text, override, configs))
            continue
        if _CUSTOM_KEYS.get(section) == name and section not in chosen:
            texts.append(f"{section}=custom")
            chosen.add(section)
        texts.append(text)
    return texts


def _choice(group: str, text: str, override: Override, configs: Path) -> list[str]:
    known = groups.choices(configs, group)
    sweep = override.is_sweep_override()
    values = [str(v) for v in override.sweep_string_iterator()] if sweep else [override.get_value_element_as_str()]
    values = [value.replace("\\:", ":") for value in values]  # Hydra escapes it
    if group == "method" and any(registry.is_own(value.strip("'\"")) for value in values):
        return [f"method={','.join(_method_of_ones_own(value) for value in values)}"]
    if group == "reward" and any(value.strip("'\"").endswith(YAML) for value in values):
        return [f"reward={','.join(_scorer_of_ones_own(value) for value in values)}"]
    for value in values:
        plain = value.strip("'\"")
        if plain in known or (group in groups.OPTIONAL and plain == "null"):
            continue
        if group == "reward" and plain == REWARD_OF_FILE:
            continue
        if group not in _CUSTOM_KEYS:
            raise _no_choice(group, plain, text, known, configs)
        key = f"{group}.{_CUSTOM_KEYS[group]}"
        if "/" not in plain and not Path(plain).exists():
            if group == "data" and Path(plain).suffix:
                raise UserError(f"{text}: there is no such file.{did_you_mean(plain, _files_here())}")
            meant = slip_of(plain, known)
            raise UserError(
                f"{text}: choose from {', '.join(known)}, or name your own with {key}=….{did_you_mean(plain, known)}",
                instead={group: meant} if meant else None,
            )
        if len(values) > 1:
            raise UserError(f"{text}: to run over several of your own, write {key}={','.join(values)}.")
        return [f"{group}=custom", f"{key}={value}"]
    return [text]


def _no_choice(group: str, plain: str, text: str, known: Sequence[str], configs: Path) -> UserError:
    """Return the error of a choice that a group does not have, with where else the word is one."""
    meant = slip_of(plain, known)
    near = meant if group == "method" else nearest(plain, known)  # a method of another name is another method
    if group == "adapter" and plain.lower() == "qlora":
        words = {"adapter": "lora", "model.quantization": "4bit"}
        return UserError(f"{text}: QLoRA is adapter=lora model.quantization=4bit.", instead=words)
    if group == "reward" and plain in registry.choices("scorers"):
        return UserError(
            f"{text}: {plain} is a scorer whose settings go into a file: write `scorer: {plain}` and its settings into "
            f"FILE.yaml, and reward=FILE.yaml (reward/README.md); ready to use are {', '.join(known)}."
        )
    if group == "method" and plain.lower() not in known and (found := _value_of(plain, configs)):
        choice, key = found
        words = {"method": choice, f"method.{key}": plain}
        return UserError(f"{text}: {plain} is {key} of method={choice}.", instead=words)
    more = {"reward": ", or name a YAML file with a scorer and its settings", "method": ", or name FILE.py:CLASS"}
    about = "; --help says what each is for" if group == "method" and near is None else ""
    return UserError(
        f"{text}: choose from {', '.join(known)}{more.get(group, '')}{about}."
        + (f' Did you mean "{near}"?' if near else ""),
        instead={group: meant} if meant else None,
    )


def _value_of(word: str, configs: Path) -> tuple[str, str] | None:
    """Return the method and its setting that have a word as a value, as the comments of its file tell."""
    for file in sorted((configs / "method").glob("*.yaml")):
        for line in file.read_text(encoding="utf-8").splitlines():
            found = re.match(r"(\w+): (\w+)  # (.*)", line)
            if found and found[3].startswith(found[2]) and word in re.findall(r"\w+", found[3]):  # it lists the values
                return file.stem, found[1]
    return None


def _files_here() -> list[str]:
    return [entry.name for entry in Path.cwd().iterdir() if entry.is_file()]


def _method_of_ones_own(value: str) -> str:
    """Register a class in a Python file as a choice of ``method=``; returns its name there."""
    place = value.strip("'\"")
    if not registry.is_own(place):
        return value
    cls = registry.load("methods", place)
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise UserError(f"method={place} is no dataclass; write it as methods/sft.py is written.")
    name = re.sub(r"\W+", "_", place)
    ConfigStore.instance().store(group="method", name=name, node={"name": place, **defaults(cls)})
    return name


def _scorer_of_ones_own(value: str) -> str:
    """Register a YAML file with a scorer as a choice of ``reward=``; returns its name."""
    file = value.strip("'\"")
    if not file.endswith(YAML):
        return value
    name = re.sub(r"\W+", "_", str(Path(file).resolve())).strip("_")
    ConfigStore.instance().store(group="reward", name=name, node=read_settings(file))
    return name
