"""Reads the words of ``align compare``: methods with their settings, how they are compared, settings of all runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge

from align.cli.parse import groups
from align.cli.parse.command import read_command
from align.cli.parse.compose import register_methods
from align.cli.parse.job import Job, read_job
from align.errors import Mistakes, UserError, did_you_mean, nearest
from align.settings import registry
from align.settings.config import RunConfig, TrainerConfig
from align.settings.type_checks import Count, Settings, build

__all__ = ["FEW_SHOT", "Budget", "CompareConfig", "Comparison", "Contender", "compose", "read_comparison"]

FEW_SHOT = "icl"
"""Name of the contender that trains nothing: the start model with answered examples in front of each prompt."""
_SHOTS = 4
_OWN_FOLDER = ("run_name", "output_root", "if_exists", "dry_run", "seed", "stage", "recipe", "method")
"""Words that the comparison sets for each of its runs."""
_LENGTHS = ("trainer.steps", "trainer.epochs")
_LONGEST = 24  # letters of a label
_OF_ONE = ("trainer", "adapter", "reward")
"""Groups of settings of which each method can have its own, beside those of the method."""
_OF_ALL = ("trainer.max_length",)
"""Settings of these groups that are the same for all, for rows that are too long would be left out for one alone."""
_OF_TRAINER = frozenset(setting.name for setting in fields(TrainerConfig))


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    """The settings of a comparison; all other words are settings of every run."""

    methods: tuple[str, ...]
    """Names, with settings: [sft, dpo, dpo:loss_type=ipo, slic:samples=8]; icl is few-shot prompting."""
    seeds: Count = 3
    """Training runs of each method."""
    budget: str | None = None
    """Of each run: epochs:1, tokens:2e6 or minutes:5; null: each method's own length."""
    tune: Annotated[int, Ge(0)] = 0
    """Settings that each method may try on prompts of their own, which are not reported; 0: none."""
    judge: str = "auto"
    """A scorer's name or YAML file; auto: the true reward of the world, else a reward model of its own pairs."""
    frontier: bool = False
    """Train the first seed with weaker and stronger ties to the reference too: a line of score over KL per method."""
    workers: Annotated[int, Ge(0)] = 0
    """Runs at the same time; 0: one for each processor core, or one where there is an accelerator."""


_OWN = frozenset(setting.name for setting in fields(CompareConfig))


@dataclass(frozen=True)
class Budget:
    """Length of every run."""

    unit: Literal["epochs", "tokens", "minutes"]
    amount: float

    @classmethod
    def read(cls, text: str) -> Budget:
        """Read ``tokens:2e6``; raises `UserError`."""
        unit, _, number = text.partition(":")
        try:
            amount = float(number)
        except ValueError:
            amount = 0.0
        if unit not in ("epochs", "tokens", "minutes") or not 0 < amount < float("inf"):
            raise UserError(f"budget={text}: write epochs:1, tokens:2e6 or minutes:5.")
        return cls(unit, amount)

    def __str__(self) -> str:
        return f"{self.amount:,g} {self.unit if self.amount != 1 else self.unit.removesuffix('s')}"


@dataclass(frozen=True)
class Contender:
    """One of the things that are compared."""

    label: str
    """As typed, the end of a long one left out; of a method in a file without its folder."""
    method: str | None
    """Its name, or FILE.py:CLASS; None: the start model, prompted with ``shots`` examples."""
    words: tuple[str, ...] = ()
    """Settings of its runs."""
    shots: int = 0
    whole: str | None = None
    """The label with its end; None: it is not long."""

    @property
    def name(self) -> str:
        """The label with its end, by which it is known again whatever it is compared with."""
        return self.whole or self.label

    @property
    def folder(self) -> str:
        """A name for files, which a word of a command can have as its value."""
        return re.sub(r"[^\w.-]+", "_", self.name)


@dataclass(frozen=True)
class Comparison:
    """The words of a comparison, checked."""

    settings: CompareConfig
    contenders: Sequence[Contender]
    shared: Sequence[str]
    """Words of every run."""
    configs: Path
    config: RunConfig
    """Settings that all runs share; its method means nothing."""
    run_name: str
    budget: Budget | None = None
    typed: frozenset[str] = field(default_factory=frozenset[str])
    """Keys that were typed."""
    words: Sequence[str] = ()
    """As typed."""
    jobs: Mapping[str, Job] = field(default_factory=dict[str, Job])
    """By label, of each contender that is trained, on the user's data."""

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return list(range(self.config.seed, self.config.seed + self.settings.seeds))

    @property
    def cut_labels(self) -> dict[str, str]:
        """The labels whose end is left out, with it."""
        return {c.label: c.whole for c in self.contenders if c.whole is not None}

    @property
    def trained(self) -> list[Contender]:
        """Contenders that are trained."""
        return [contender for contender in self.contenders if contender.method is not None]

    @property
    def shipped(self) -> list[str]:
        """Labels of the contenders whose method has settings tuned for the model, shipped in ``configs/tuned/``."""
        model = groups.chosen(self.configs, self.shared, "model")
        return [c.label for c in self.trained if groups.tuned_file(self.configs, model, str(c.method)) is not None]

    def job(self, words: Sequence[str]) -> Job:
        """Read the words of one run."""
        return _read_job(self.configs, words)


def read_comparison(words: Sequence[str], configs: Path) -> Comparison:
    """Sort the words, and compose the settings of every contender once to find what is wrong with them.

    Raises:
        UserError: A word is wrong.
    """
    given, shared = _sorted(words)
    settings = _settings(given)
    keys = {word.partition("=")[0].lstrip("+") for word in shared}
    mistakes = Mistakes()
    with mistakes.noted():
        _require_known(shared, configs)
    for key in sorted(keys & {"method", "stage", "recipe", "dry_run", "if_exists"}):
        with mistakes.noted():
            raise UserError(f"{key}: a comparison sets it for each of its runs; leave it out.")
    contenders: list[Contender] = []
    for word in settings.methods:
        with mistakes.noted():
            contenders.append(_contender(word, configs))
    budget: Budget | None = None
    if settings.budget is not None:
        with mistakes.noted():
            budget = Budget.read(settings.budget)
            _require_no_length([*shared, *(word for c in contenders for word in c.words)], settings.budget)
    for label, count in Counter(contender.label for contender in contenders).items():
        if count > 1:
            with mistakes.noted():
                raise UserError(f"methods: {label} is named twice; give it other settings, or name it once.")
    mistakes.require_none()
    contenders = _shortened(contenders)
    kept = [word for word in shared if word.partition("=")[0] not in _OWN_FOLDER]
    trained = [contender for contender in contenders if contender.method is not None]
    _require_of_each(shared, trained, configs)
    if not trained:
        raise UserError(f"methods={given['methods']} trains nothing; name a method to compare with {FEW_SHOT}.")
    method = trained[0].method
    jobs: dict[str, Job] = {}
    for contender in trained:
        with mistakes.noted():
            jobs[contender.label] = _read_job(configs, [f"method={contender.method}", *kept, *contender.words])
    mistakes.require_none()
    _require_different(jobs)
    config = compose(configs, [f"method={method}", *shared])
    name = config.run_name if "run_name" in keys else _name(config, re.sub(r"\W+", "_", f"{method}") + "-")
    return Comparison(settings, contenders, kept, configs, config, name, budget, frozenset(keys), tuple(words), jobs)


def _sorted(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the settings of the comparison, and the words that are those of every run."""
    given: dict[str, str] = {}
    shared: list[str] = []
    for word in words:
        key, sign, value = word.partition("=")
        if key not in _OWN or not sign:
            shared.append(word)
        elif key in given:
            raise UserError(f"{key} is given twice: {given[key]} and {value}.")
        else:
            given[key] = value
    if "methods" not in given:
        near = did_you_mean(words[0].partition("=")[0], _OWN) if words else ""
        raise UserError(f"methods is missing: write methods=[sft,dpo,ppo], or those you want to compare.{near}")
    return given, shared


def _settings(given: Mapping[str, str]) -> CompareConfig:
    values: dict[str, Any] = {**given, "methods": tuple(_listed(given["methods"]))}
    for name in ("seeds", "tune", "workers"):
        if name in values and re.fullmatch(r"-?\d+", values[name]):
            values[name] = int(values[name])
    if values.get("frontier") in ("true", "false"):
        values["frontier"] = values["frontier"] == "true"
    return build(CompareConfig, values)


def compose(configs: Path, words: Sequence[str]) -> RunConfig:
    """Compose the settings of one run."""
    return _read_job(configs, words).runs[-1]


def _read_job(configs: Path, words: Sequence[str]) -> Job:
    command = read_command(words, configs)
    register_methods(configs, command.overrides)
    return read_job(command.overrides, configs)


def _name(config: RunConfig, prefix: str) -> str:
    """Return compare-model-data."""
    return f"compare-{config.run_name.removeprefix(prefix).removesuffix(f'-seed{config.seed}')}"


def _listed(text: str) -> list[str]:
    missing = "closing" if text.count("[") > text.count("]") else "opening"
    if text.count("[") != text.count("]"):
        raise UserError(f"methods={text}: the {missing} bracket is missing; write methods=[sft,dpo] between quotes.")
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    parts = [part.strip().strip("'\"") for part in re.split(r",(?![^\[]*\])", inner)]  # not those of a list inside
    if not all(parts):
        raise UserError(f"methods={text}: write names with commas between them, as in methods=[sft,dpo].")
    return parts


def _require_known(shared: Sequence[str], configs: Path) -> None:
    """Raise where a word is a mistyped setting of the comparison, of which the runs know nothing."""
    known = {*groups.names(configs), *(setting.name for setting in fields(RunConfig))}
    for word in shared:
        key, equals, _ = word.partition("=")
        if equals and "." not in key and key not in known and (near := nearest(key, _OWN)):
            raise UserError(f'{key} is not a setting. Did you mean "{near}"?')


def _require_no_length(words: Sequence[str], budget: str | None) -> None:
    """Raise where the budget is not the only one that says how long to train."""
    typed = (word.lstrip("+").partition("=") for word in words)
    if length := sorted(key for key, _, value in typed if key in _LENGTHS and value != "null"):
        raise UserError(f"budget={budget} and {length[0]} both say how long to train: give one of them.")


def _require_of_each(shared: Sequence[str], trained: Sequence[Contender], configs: Path) -> None:
    """Raise where a setting of methods is given to all, and not all have it."""
    names = dict.fromkeys(c.method for c in trained if c.method is not None)
    have = {name: found for name in names if (found := _settings_of(name, configs)) is not None}
    for word in shared:
        section, _, setting = word.lstrip("+").partition(".")
        key = setting.partition("=")[0]
        with_it = [name for name in have if key in have[name]]
        if section == "method" and with_it and len(with_it) < len(have):
            raise UserError(
                f"{word}: {', '.join(name for name in have if name not in with_it)} has no {key}; give it to those "
                f"that have it, in methods=: {', '.join(f'{name}:{setting}' for name in with_it)}."
            )


def _settings_of(method: str, configs: Path) -> set[str] | None:
    """Return the names of a method's settings; None for one of a file or of another package, which has none here."""
    file = configs / "method" / f"{method}.yaml"
    return set(re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE)) if file.is_file() else None


def _shortened(contenders: Sequence[Contender]) -> list[Contender]:
    """Leave out the end of long labels, where they still differ: tables and sentences have many of them."""
    short: list[str] = []
    for contender in contenders:
        name, *settings = re.split(r":(?=[\w.]+=)", contender.label)
        while settings and len(":".join([name, *settings])) > _LONGEST:
            settings.pop()
        cut = ":".join([name, *settings])
        short.append(contender.label if cut == contender.label else f"{cut}:…")
    return [
        replace(contender, label=label, whole=contender.label)
        if label != contender.label and short.count(label) == 1
        else contender
        for contender, label in zip(contenders, short, strict=True)
    ]


def _require_different(jobs: Mapping[str, Job]) -> None:
    """Settings may be typed in several ways: ``beta=0.2`` and ``beta=0.20``, or the value that is set anyhow."""
    for (one, job), (other, twin) in combinations(jobs.items(), 2):
        further = [{stage: own for stage, own in x.overrides.own.items() if stage not in x.stages} for x in (job, twin)]
        if job.runs == twin.runs and further[0] == further[1]:
            raise UserError(f"methods: {one} and {other} have the same settings; name one of them.")


def _contender(word: str, configs: Path) -> Contender:
    own = re.match(r"[^=]*?\.py:\w*", word)  # the colon of FILE.py:CLASS begins no setting
    name = own[0] if own else word.partition(":")[0]
    settings = word[len(name) :].split(":")[1:]
    shown = f"{Path(name).name}{word[len(name) :]}" if own else word
    for setting in settings:
        if not re.fullmatch(r"[\w.]+=.+", setting):
            raise UserError(f"methods: {word}: {setting!r} is not a setting; write {name}, or {name}:key=value.")
    pairs: Mapping[str, str] = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
    if name == FEW_SHOT:
        shots = pairs.get("shots", str(_SHOTS))
        if set(pairs) - {"shots"} or not shots.isdigit() or not int(shots):
            raise UserError(f"methods: {word}: {FEW_SHOT} has one setting, the number of examples: {FEW_SHOT}:shots=4.")
        return Contender(word, None, shots=int(shots))
    known = registry.choices("methods")
    if not own and name not in known:
        file = f" A method of your own is {name}:CLASS." if name.endswith(".py") else ""
        raise UserError(
            f"methods: {name!r} is none of {', '.join([FEW_SHOT, *known])}, nor FILE.py:CLASS."
            f"{file or did_you_mean(name, [FEW_SHOT, *known])}"
        )
    its_own = _settings_of(name, configs)
    for key, value in pairs.items():
        group, dot, setting = key.partition(".")
        if dot and group == "method":
            raise UserError(f"methods: {word}: settings of the method stand alone here: {name}:{setting}={value}.")
        is_group = not dot and its_own is not None and key not in its_own and key in groups.names(configs)
        if is_group or (dot and (group not in _OF_ONE or key in _OF_ALL)):
            alike = key if key in _OF_ALL else group
            raise UserError(
                f"methods: {word}: {alike} is the same for all that are compared; write {key}={value} beside methods=, "
                "or leave it out."
            )
        if its_own is None or key in its_own:
            continue
        if key in _OWN_FOLDER:
            raise UserError(f"methods: {word}: a comparison sets {key} for each of its runs; leave it out.")
        if key in _OF_TRAINER:
            raise UserError(
                f"methods: {word}: {key} is a setting of the trainer, and each method can have its own: "
                f"{name}:trainer.{key}={value}."
            )
    words = [key if "." in key else f"method.{key}" for key in pairs]
    return Contender(shown, name, tuple(f"{key}={value}" for key, value in zip(words, pairs.values(), strict=True)))
