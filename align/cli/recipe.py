"""Runs that are several stages: a recipe, or a method that needs a reward model of its own first.

The stages share a folder, ``<run_name>/1-sft``, ``<run_name>/2-reward`` …, each a run like any other. A stage begins
from the policy, and with the reward model, that the stages before it left. With ``if_exists=resume`` finished stages
are not run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.cli.compose import compose_run
from align.cli.report import say
from align.config import RunConfig
from align.errors import UserError

__all__ = ["Recipe", "read_recipe"]

_REWARD = "reward"  # the method that trains the reward role
# Settings of the trainer that do not depend on the method: they are of all stages.
_COMMON = frozenset(
    f"trainer.{name}"
    for name in ("max_length", "precision", "tokens_per_microbatch", "gradient_checkpointing", "save_steps", "samples")
)


@dataclass(frozen=True)
class Recipe:
    """Methods that are run one after the other."""

    configs: Path
    name: str
    stages: tuple[str, ...]
    shared: list[str] = field(default_factory=list[str])
    """Overrides of all stages."""
    own: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    """Those of one stage, without its name."""

    def check(self) -> RunConfig:
        """Check every stage, as far as it is known before the first has run; returns the last one."""
        from align.cli.execute import make_method

        configs = [self._compose(stage) for stage in self.stages]
        for config in configs:
            make_method(config)
        return configs[-1]

    def run(self, execute: Callable[[RunConfig], int]) -> int:
        """Run the stages until one ends with another exit code than 0; returns the last one's."""
        last = self.check()
        if last.dry_run:
            return max([execute(self._compose(stage)) for stage in self.stages])
        folder = _make_folder(Path(last.output_root) / last.run_name, last.if_exists)
        left: list[str] = []
        for number, stage in enumerate(self.stages, start=1):
            place = [f"output_root={_quoted(folder)}", f"run_name={number}-{stage}"]
            config = self._compose(stage, *place, *left)
            say(f"Stage {number} of {len(self.stages)}: {stage}")
            code = execute(config)
            if code:
                return code
            left += _left_by(stage, folder / f"{number}-{stage}" / "final", adapters=config.adapter is not None)
        say(f"All stages: {folder}")
        return 0

    def _compose(self, stage: str, *further: str) -> RunConfig:
        begin = ["model.start=null"] if self.stages[0] == "sft" else []
        words = [*self.shared, *begin, *self.own.get(stage, []), *further]
        config = compose_run(self.configs, [f"method={stage}", *words])
        if further:
            return config
        name = config.run_name
        if name.startswith(f"{stage}-"):  # the default name has the method's
            name = self.name + name.removeprefix(stage)
        return dataclasses.replace(config, run_name=name)


def read_recipe(overrides: Sequence[str], configs: Path) -> Recipe | None:
    """The recipe that the overrides choose, or that their method needs; None: a single run."""
    chosen = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    name = chosen.get("recipe", "null")
    if name == "null":
        config = compose_run(configs, overrides)
        if config.reward is not None or not _needs_rewards(config.method):
            return None
        name, stages = config.method, (_REWARD, config.method)
    else:
        if "method" in chosen:
            raise UserError(f"recipe={name} chooses the methods itself; leave method={chosen['method']} out.")
        content: Any = OmegaConf.to_container(OmegaConf.load(configs / "recipe" / f"{name}.yaml"))
        stages = tuple(content["stages"])
    recipe = Recipe(configs, name, stages)
    for override in overrides:
        key = override.partition("=")[0]
        section, _, rest = key.partition(".")
        if key in ("recipe", "method"):
            continue
        if section in stages and "." in rest:  # sft.trainer.epochs; reward.model is the scorer's
            recipe.own.setdefault(section, []).append(override.removeprefix(f"{section}."))
        elif section in ("method", "trainer") and key not in _COMMON:
            if "recipe" in chosen:
                example = ", ".join(f"{stage}.{override}" for stage in stages)
                raise UserError(f"{key}: say of which stage it is: {example}.")
            recipe.own.setdefault(stages[-1], []).append(override)
        else:
            recipe.shared.append(override)
    return recipe


def _needs_rewards(name: str) -> bool:
    from align import registry
    from align.rollout import OnlineMethod

    method = registry.load("methods", name)
    return isinstance(method, type) and issubclass(method, OnlineMethod)


def _left_by(stage: str, final: Path, *, adapters: bool) -> list[str]:
    """What the stages after this one begin with."""
    if stage == _REWARD:
        return ["reward=model", f"reward.model={_quoted(final / 'reward')}"]
    return [f"model.{'start' if adapters else 'name'}={_quoted(final)}"]


def _quoted(path: Path) -> str:
    return f"'{path}'"


def _make_folder(folder: Path, if_exists: str) -> Path:
    """The folder of all stages, the same on every rank; ``new`` takes the next free name."""
    from accelerate.utils import broadcast_object_list

    from align.processes import process_state

    made: list[Any] = [folder]
    state = process_state()
    if state.is_main_process:
        number = 2
        while if_exists == "new" and made[0].exists():
            made[0] = folder.with_name(f"{folder.name}-{number}")
            number += 1
        made[0].mkdir(parents=True, exist_ok=True)
    if state.num_processes > 1:
        broadcast_object_list(made)
    return made[0]
