"""Reads what a command asks for, one run or the stages of a recipe, and finds what is wrong with its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from align.cli.parse.compose import compose_run
from align.cli.parse.recipe_file import RecipeFile, read_recipe
from align.cli.parse.trackers import require_trackers
from align.cli.parse.unknown_keys import SECTIONS
from align.errors import UserError
from align.settings.config import RunConfig

__all__ = ["Job", "StageOverrides", "depends_on_method", "read_job"]

# Trainer settings that do not depend on the method: they apply to all stages.
_COMMON = frozenset(
    f"trainer.{name}"
    for name in ("max_length", "precision", "tokens_per_microbatch", "gradient_checkpointing", "save_steps", "samples")
)


@dataclass(frozen=True, kw_only=True)
class StageOverrides:
    """The words typed, by the stages they apply to."""

    configs: Path
    shared: list[str]
    """For all stages."""
    own: dict[str, list[str]]
    """For one stage, without its name in front."""
    recipe: RecipeFile | None = None

    @property
    def from_base(self) -> bool:
        """Stages begin from the pretrained model, not from the adapter of ``model.start``."""
        return self.recipe is not None and self.recipe.from_base

    def compose(self, stage: str) -> RunConfig:
        """Compose the settings of a stage: those of the recipe's file, then the words typed."""
        own, recipe = self.own.get(stage, []), self.recipe
        method = recipe.methods.get(stage, stage) if recipe else stage
        begin = ["model.start=null"] if self.from_base else []
        words = [f"method={method}", *self.shared, *begin, *own]
        try:
            return compose_run(self.configs, words, recipe=recipe.settings.get(stage, ()) if recipe else ())
        except UserError as error:  # a sentence begins with the key; here it was typed with the name of the stage
            typed = tuple(word.partition("=")[0] for word in own)
            placed = [f"{stage}.{told}" if str(told).startswith(typed) else str(told) for told in error.args]
            raise UserError(*placed) from error


@dataclass(frozen=True, kw_only=True)
class Job:
    """The checked settings of a command."""

    name: str
    """The recipe, or the only method."""
    runs: tuple[RunConfig, ...]
    """Settings of the stages that the words name, in the order of training."""
    stages: tuple[str, ...]
    """Their names: the methods', where a recipe does not give others."""
    is_recipe: bool
    overrides: StageOverrides
    reward_method: str
    """Trains a reward model for a method that needs one, where the words give none."""
    reward_choice: str
    """The choice of ``reward=`` with which later stages use it."""

    @property
    def reward_settings(self) -> Mapping[str, Any]:
        """The scorer of such a reward model; ``model`` must be set to its folder."""
        return _read(self.overrides.configs / "reward" / f"{self.reward_choice}.yaml")


def read_job(overrides: Sequence[str], configs: Path, *, swept: Sequence[str] = ()) -> Job:
    """Compose and check the settings that `overrides` ask for; no method is imported.

    Args:
        overrides: As in `Command.overrides`.
        configs: Folder of the configuration groups.
        swept: Keys that differ between the runs of a multirun; see `compose_run`.

    Raises:
        UserError: A word is wrong, or does not say which stage it is for.
    """
    chosen = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    first = _read(configs / "prerequisites.yaml")["reward"]
    recipe = chosen.get("recipe", "null")
    if recipe == "null":
        # Settings of the stage that may train first are for it alone.
        mine = [override for override in overrides if not _is_of_stage(override.partition("=")[0], first["method"])]
        config = compose_run(configs, mine, swept=swept)
        name, runs = config.method, (config,)
        if name == first["method"] and len(mine) < len(overrides):
            word = next(override for override in overrides if override not in mine)
            raise UserError(f"{word}: with method={name} write {word.removeprefix(f'{name}.')}.")
        by_stage = _sort(overrides, configs, (name,), first["method"])
        stages = (name,)
    else:
        if given := sorted({"method", "stage"} & set(chosen)):
            raise UserError(f"recipe={recipe} chooses the methods itself; leave {given[0]}={chosen[given[0]]} out.")
        file = read_recipe(configs, recipe)
        stages = file.stages
        _require_stage_names(overrides, stages)
        if missing := [key for key in file.missing if key not in chosen]:
            raise UserError(f"recipe={recipe} needs {missing[0]}=…: nothing else says what it is.")
        by_stage = _sort(overrides, configs, stages, first["method"], recipe=file)
        composed = {stage: by_stage.compose(stage) for stage in dict.fromkeys(stages)}
        name, runs = recipe, tuple(composed[stage] for stage in stages)
    for run in runs:
        require_trackers(run)
    return Job(
        name=name,
        runs=runs,
        stages=stages,
        is_recipe=recipe != "null",
        overrides=by_stage,
        reward_method=first["method"],
        reward_choice=first["choice"],
    )


def _read(file: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))


def _sort(
    overrides: Sequence[str],
    configs: Path,
    stages: Sequence[str],
    first: str,
    *,
    recipe: RecipeFile | None = None,
) -> StageOverrides:
    """Sort `overrides` into those of all stages and those of each; `first` may train before the stages named.

    Settings of ``method`` and ``trainer`` without the name of a stage belong to the last one.
    """
    shared: list[str] = []
    own: dict[str, list[str]] = {}
    for override in overrides:
        key = override.partition("=")[0]
        if key in ("recipe", "method", "stage"):
            continue
        stage = key.partition(".")[0]
        if stage in (*stages, first) and _is_of_stage(key, stage):
            own.setdefault(stage, []).append(override.removeprefix(f"{stage}."))
        elif depends_on_method(key):
            own.setdefault(stages[-1], []).append(override)
        else:
            shared.append(override)
    return StageOverrides(configs=configs, shared=shared, own=own, recipe=recipe)


def _is_of_stage(key: str, stage: str) -> bool:
    """True for a key with the name of a stage in front, such as ``sft.trainer.steps``."""
    name, _, rest = key.partition(".")
    return name == stage and "." in rest and (stage not in SECTIONS or rest.partition(".")[0] in SECTIONS)


def _require_stage_names(overrides: Sequence[str], stages: Sequence[str]) -> None:
    names = list(dict.fromkeys(stages))
    for override in overrides if len(names) > 1 else ():
        key = override.partition("=")[0]
        if depends_on_method(key):
            example = ", ".join(f"{name}.{override}" for name in names)
            raise UserError(f"{key}: say of which stage it is: {example}.")


def depends_on_method(key: str) -> bool:
    """Return whether a setting is for one method, not for all stages of a run."""
    return key.partition(".")[0] in ("method", "trainer") and "." in key and key not in _COMMON
