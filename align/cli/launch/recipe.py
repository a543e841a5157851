"""Runs that are several stages: a recipe, or a method that needs a reward model or candidates of its own first.

The stages share a folder, ``<run_name>/1-sft``, ``<run_name>/2-reward`` …, each a run like any other. A stage begins
from the policy, and with the reward model and the candidates, that the stages before it left. With
``if_exists=resume`` finished stages are not run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.cli.console import say
from align.cli.parse.compose import compose_run
from align.errors import UserError
from align.settings.config import RunConfig

__all__ = ["Recipe", "names_recipe", "read_recipe"]

CANDIDATES, HELDOUT = "candidates.jsonl", "heldout.jsonl"  # what a stage `sample` leaves in its folder
_REWARD = "reward"  # the method that trains the reward role
# Settings of the trainer that do not depend on the method: they are of all stages.
_COMMON = frozenset(
    f"trainer.{name}"
    for name in ("max_length", "precision", "tokens_per_microbatch", "gradient_checkpointing", "save_steps", "samples")
)


@dataclass(frozen=True)
class Stage:
    """One run of a recipe."""

    method: str
    part: str | None = None
    """``sample`` or ``train`` where the method draws candidates first; None: all there is to do."""
    from_base: bool = False
    """It begins from the pretrained model, whatever the stages before it trained."""

    @property
    def name(self) -> str:
        """As its folder is called."""
        return "sample" if self.part == "sample" else self.method


@dataclass(frozen=True)
class Recipe:
    """Stages that are run one after the other."""

    configs: Path
    name: str
    stages: tuple[Stage, ...]
    shared: list[str] = field(default_factory=list[str])
    """Overrides of all stages."""
    own: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    """Those of one stage, without its name."""

    def check(self) -> RunConfig:
        """Check every stage, as far as it is known before the first has run; returns the last one."""
        from align.cli.launch.execute import make_method

        configs = [self._compose(stage) for stage in self.stages]
        for config in configs:
            make_method(config)
        return configs[-1]

    def run(self, execute: Callable[[RunConfig], int]) -> int:
        """Run the stages until one ends with another exit code than 0; returns the last one's."""
        last = self.check()
        if last.dry_run:
            return max([execute(self._compose(stage)) for stage in self.stages])
        from align.system.processes import on_first

        folder = on_first(lambda: _make_folder(Path(last.output_root) / last.run_name, last.if_exists))
        left: list[str] = []  # for all later stages
        drawn: list[str] = []  # for the training that the candidates are for
        for number, stage in enumerate(self.stages, start=1):
            place = [f"output_root={_quoted(folder)}", f"run_name={number}-{stage.name}"]
            before = [word for word in left if not (stage.from_base and word.startswith("model."))]
            config = self._compose(stage, *place, *before, *(drawn if stage.part == "train" else []))
            say(f"Stage {number} of {len(self.stages)}: {stage.name}")
            code = execute(config)
            if code:
                return code
            done = folder / f"{number}-{stage.name}"
            if stage.part == "sample":
                drawn = _drawn_by(done)
            else:
                left += _left_by(stage, done / "final", adapters=config.adapter is not None)
        say(f"All stages: {folder}")
        return 0

    def _compose(self, stage: Stage, *further: str) -> RunConfig:
        begin = ["model.start=null"] if self.stages[0].method == "sft" or stage.from_base else []
        part = [f"stage={stage.part}"] if stage.part else []
        words = [*self.shared, *begin, *part, *self.own.get(stage.method, []), *further]
        config = compose_run(self.configs, [f"method={stage.method}", *words])
        if further:
            return config
        name = config.run_name
        if name.startswith(f"{stage.method}-"):  # the default name has the method's
            name = self.name + name.removeprefix(stage.method)
        return dataclasses.replace(config, run_name=name)


def names_recipe(overrides: Sequence[str]) -> bool:
    """Whether the overrides choose a recipe, and may then hold settings of its stages."""
    return any(override.startswith("recipe=") and override != "recipe=null" for override in overrides)


def read_recipe(overrides: Sequence[str], configs: Path) -> Recipe | None:
    """The recipe that the overrides choose, or that their method needs; None: a single run."""
    chosen = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    name = chosen.get("recipe", "null")
    if name == "null":
        config = compose_run(configs, overrides)
        stages = _stages(config)
        if stages == (Stage(config.method, config.stage),):
            return None
        return Recipe(configs, config.method, stages, *_sorted(overrides, (config.method,), named=False))
    if given := sorted({"method", "stage"} & set(chosen)):
        raise UserError(f"recipe={name} chooses the methods itself; leave {given[0]}={chosen[given[0]]} out.")
    content: Any = OmegaConf.to_container(OmegaConf.load(configs / "recipe" / f"{name}.yaml"))
    methods: list[str] = content["stages"]
    shared, own = _sorted(overrides, methods, named=True)
    stages = ()
    for method in methods:
        config = compose_run(configs, [f"method={method}", *shared, *own.get(method, [])])
        ready = any(stage.method == _REWARD for stage in stages)
        stages += _stages(config, reward=config.reward is not None or ready)
    return Recipe(configs, name, stages, shared, own)


def _stages(config: RunConfig, *, reward: bool | None = None) -> tuple[Stage, ...]:
    """What a run of this method consists of; ``reward``: whether there is something that scores."""
    if config.method == _REWARD:
        return (Stage(_REWARD),)
    from align.cli.launch.execute import make_method
    from align.method.online import OnlineMethod

    method = make_method(config)
    plan = method.candidates if config.stage != "train" else None
    needed = isinstance(method, OnlineMethod) or (plan is not None and plan.scored)
    first = (Stage(_REWARD),) if needed and not (config.reward is not None if reward is None else reward) else ()
    if plan is None:
        return (*first, Stage(config.method, config.stage))
    sample, train = Stage(config.method, "sample"), Stage(config.method, "train", plan.from_base)
    return (*first, sample) if config.stage == "sample" else (*first, *((sample, train) * plan.rounds))


def _sorted(overrides: Sequence[str], methods: Sequence[str], *, named: bool) -> tuple[list[str], dict[str, list[str]]]:
    """The overrides of all stages, and those of each method, which in a recipe must be named."""
    shared: list[str] = []
    own: dict[str, list[str]] = {}
    for override in overrides:
        key = override.partition("=")[0]
        section, _, rest = key.partition(".")
        if key in ("recipe", "method", "stage"):
            continue
        if section in (*methods, _REWARD) and "." in rest:  # sft.trainer.epochs; reward.model is the scorer's
            own.setdefault(section, []).append(override.removeprefix(f"{section}."))
        elif section in ("method", "trainer") and key not in _COMMON:
            if named:
                example = ", ".join(f"{method}.{override}" for method in methods)
                raise UserError(f"{key}: say of which stage it is: {example}.")
            own.setdefault(methods[-1], []).append(override)
        else:
            shared.append(override)
    return shared, own


def _left_by(stage: Stage, final: Path, *, adapters: bool) -> list[str]:
    """What the stages after this one begin with."""
    if stage.method == _REWARD:
        return ["reward=model", f"reward.model={_quoted(final / 'reward')}"]
    return [f"model.{'start' if adapters else 'name'}={_quoted(final)}"]


def _drawn_by(folder: Path) -> list[str]:
    """The candidates as data, with what was held out from the prompts they were drawn for."""
    heldout = folder / HELDOUT
    held = [f"data.heldout={_quoted(heldout)}"] if heldout.exists() else []
    return [f"data.train={_quoted(folder / CANDIDATES)}", "data.format=auto", "data.expected_rows=null", *held]


def _quoted(path: Path) -> str:
    return f"'{path}'"


def _make_folder(folder: Path, if_exists: str) -> Path:
    """The folder of all stages."""
    number, made = 2, folder
    while if_exists == "new" and made.exists():
        made = folder.with_name(f"{folder.name}-{number}")
        number += 1
    made.mkdir(parents=True, exist_ok=True)
    return made
