"""Runs that are several stages: a recipe, or a method that needs a reward model or candidates of its own first.

The stages share a folder, ``<run_name>/1-sft``, ``<run_name>/2-reward`` …, each a run like any other. A stage begins
from the policy, and with the reward model and the candidates, that the stages before it left. With
``if_exists=resume`` finished stages are not run again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import say
from align.cli.launch.resume import say_that_it_begins
from align.cli.launch.run import Rival, Run, assemble, check_sources
from align.cli.parse.job import Job
from align.errors import UserError
from align.runs.run_folder import is_run
from align.settings.config import DataConfig, ModelConfig, RunConfig

if TYPE_CHECKING:
    from align.method.base import Method

__all__ = ["CANDIDATES", "HELDOUT", "Recipe", "Stage", "assemble_job"]

CANDIDATES, HELDOUT = "candidates.jsonl", "heldout.jsonl"  # written by a stage `sample`


@dataclass(frozen=True)
class Stage:
    """One run of a recipe."""

    run: str
    """The name of its settings: the method's, where the recipe gives no other."""
    part: str | None = None
    """``sample`` or ``train`` where the method draws candidates first; None: all there is to do."""
    from_base: bool = False
    """It begins from the pretrained model, whatever the stages before it trained."""
    round: int = 1
    """Of drawing and training; each draws anew."""

    @property
    def name(self) -> str:
        """The last part of its folder's name."""
        return "sample" if self.part == "sample" else self.run


def assemble_job(job: Job) -> Run | Recipe:
    """Make the methods of a job, and find the stages that they need.

    Raises:
        UserError: A setting of a method is out of range, or a model that candidates are drawn from is not there.
    """
    runs: dict[str, Run] = {}
    stages: list[Stage] = []
    for name, config in zip(job.stages, job.runs, strict=True):
        run = runs[name] = runs.get(name) or assemble(config)
        rewarded = config.reward is not None or any("reward" in runs[stage.run].method.trains for stage in stages)
        if run.needs_reward and not rewarded:
            first = job.reward_method
            runs[first] = assemble(job.overrides.compose(first))
            stages.append(Stage(first))
        stages += _stages(name, run)
    for name in {stage.run for stage in stages if stage.part == "sample"}:
        check_sources(runs[name].method)
    if unused := [word for stage, words in job.overrides.own.items() if stage not in runs for word in words]:
        raise UserError(
            f"{job.reward_method}.{unused[0]} has no effect: no reward model is trained here, because reward= names a "
            "scorer or the method needs none; leave it out."
        )
    asked = job.runs[-1]
    if asked.data.mix is not None and not any(run.method.mixing for run in runs.values()):
        raise UserError(
            f"data.mix={asked.data.mix}: method={asked.method} as it is set mixes no demonstrations in; set "
            "method.ptx_coef above 0 where it has this setting, or leave data.mix out."
        )
    if asked.data.train_on == "all" and not any(_learns_turns(run.method) for run in runs.values()):
        raise UserError(
            f"data.train_on=all: method={asked.method} learns from the last answer of a row alone; leave it out, or "
            "take a method that learns from demonstrations."
        )
    if not job.is_recipe and stages == [Stage(asked.method, asked.stage)]:
        return runs[asked.method]
    return Recipe(job, tuple(stages), runs)


def _stages(name: str, run: Run) -> list[Stage]:
    """List the stages of one method: drawing and training in each round, or a single run."""
    config, plan = run.config, run.method.candidates
    if plan is not None and plan.rounds > 1 and config.stage is not None:
        raise UserError(
            f"method.rounds={plan.rounds} has no effect with stage={config.stage}, which is one drawing or one "
            "training; leave one of them out."
        )
    if plan is None or config.stage == "train":
        return [Stage(name, config.stage)]
    if config.stage == "sample":
        return [Stage(name, "sample")]
    parts = (("sample", False), ("train", plan.from_base))
    return [Stage(name, part, base, number) for number in range(1, plan.rounds + 1) for part, base in parts]


@dataclass(frozen=True)
class Recipe:
    """Stages that are run one after the other."""

    job: Job
    stages: tuple[Stage, ...]
    runs: Mapping[str, Run]
    """The settings and the method of each stage, by `Stage.run`."""

    @property
    def config(self) -> RunConfig:
        """The settings of the last stage, with the name of the whole."""
        return self._settings(self.stages[-1])

    def execute(self, execute: Callable[[Run], int]) -> int:
        """Run the stages until one ends with another exit code than 0; returns the last one's."""
        from align.cli.launch.assemble import require_rows_of_text  # torch: the words are right
        from align.system.processes import Processes

        whole = self.config
        for name in {stage.run for stage in self.stages[1:] if stage.part == "sample"}:
            require_rows_of_text(self.runs[name])
        if whole.dry_run:
            return max([self._try_out(execute, number) for number in range(len(self.stages))])
        place = Path(whole.output_root) / whole.run_name
        if whole.if_exists == "resume":
            say_that_it_begins(place)
        folder = Processes().on_first(lambda: _make_folder(place, whole.if_exists))
        results = _Results()
        for number, stage in enumerate(self.stages, start=1):
            settings = self._settings(stage)
            name = f"{number}-{stage.name}"
            settings = dataclasses.replace(settings, output_root=str(folder), run_name=name)
            if {"wandb", "trackio"} & set(settings.trackers):
                group = settings.wandb.group or folder.name
                settings = dataclasses.replace(settings, wandb=dataclasses.replace(settings.wandb, group=group))
            self._announce(number)
            made = self._run(stage, results.put_into(settings, stage, self._keeps_reference(stage)))
            made = dataclasses.replace(made, rival=self._rival(stage, settings, results))
            code = execute(dataclasses.replace(made, part_of=folder.name, is_last=number == len(self.stages)))
            if code:
                return code
            results = self._add_results(stage, folder / name, results)
        say(f"All stages: {folder}")
        return 0

    def _try_out(self, execute: Callable[[Run], int], number: int) -> int:
        """Do the dry run of a stage."""
        stage = self.stages[number]
        self._announce(number + 1)
        if stage.part == "train":
            say("It learns from the candidates of the stage before, which are not drawn yet.")
            return 0
        return execute(self._run(stage, self._settings(stage)))

    def _announce(self, number: int) -> None:
        """Say which stage begins, and how its settings are typed where plain ones go to the last stage."""
        stage, last = self.stages[number - 1], self.stages[-1]
        named = f" (its settings: {stage.run}.method.…, {stage.run}.trainer.…)" if stage.run != last.run else ""
        say(f"Stage {number} of {len(self.stages)}: {stage.name}{named}")

    def _settings(self, stage: Stage) -> RunConfig:
        """Return the settings of a stage as they are before any stage has run."""
        config = self.runs[stage.run].config
        name = config.run_name
        if name.startswith(f"{config.method}-"):  # the default name has the method's
            name = self.job.name + name.removeprefix(config.method)
        model = config.model
        if stage.from_base and not self.job.overrides.from_base:
            model = dataclasses.replace(model, start=None)
        return dataclasses.replace(config, run_name=name, model=model, stage=stage.part)

    def _run(self, stage: Stage, config: RunConfig) -> Run:
        return dataclasses.replace(self.runs[stage.run], config=config, round=stage.round)

    def _keeps_reference(self, stage: Stage) -> bool:
        plan = self.runs[stage.run].method.candidates
        return stage.part == "train" and plan is not None and not plan.update_reference

    def _rival(self, stage: Stage, settings: RunConfig, results: _Results) -> Rival | None:
        """Find another model than the one that the stage begins from, over which its win rate is worth knowing."""
        begins = dataclasses.replace(self.runs[stage.run].config.model, **results.model)  # before from_base
        if stage.from_base:
            return Rival(begins, "the model that drew the candidates") if begins != settings.model else None
        if stage.part == "train" and stage.run in results.begun:
            return Rival(results.begun[stage.run], "the model that the first round began from")
        return None

    def _add_results(self, stage: Stage, folder: Path, results: _Results) -> _Results:
        """Add the results of a stage in `folder` to those of the stages before it."""
        if stage.part == "sample":
            return dataclasses.replace(results, data=_candidates(folder))
        run = self.runs[stage.run]
        if stage.part == "train" and stage.run not in results.begun:
            begun = dataclasses.replace(run.config.model, **results.model)
            results = dataclasses.replace(results, begun={**results.begun, stage.run: begun})
        final = folder / "final"
        if "policy" in run.method.trains:
            field = "start" if run.config.adapter is not None else "name"
            results = dataclasses.replace(results, model={**results.model, field: str(final)})
        if "reward" in run.method.trains:
            results = dataclasses.replace(results, reward={**self.job.reward_settings, "model": str(final / "reward")})
        return results


@dataclass(frozen=True)
class _Results:
    """Results of finished stages, which later ones begin with."""

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Fields of `ModelConfig`."""
    reward: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Fields of `DataConfig`, for the training on the candidates drawn last."""
    begun: Mapping[str, ModelConfig] = dataclasses.field(default_factory=dict[str, ModelConfig])
    """The model that the first round of a method began from, by `Stage.run`."""

    def put_into(self, config: RunConfig, stage: Stage, keeps_reference: bool) -> RunConfig:
        """Return the settings of `stage` with the results in them; later rounds may keep the reference of the first."""
        model: ModelConfig = config.model if stage.from_base else dataclasses.replace(config.model, **self.model)
        if keeps_reference and (begun := self.begun.get(stage.run)) and not stage.from_base and not model.reference:
            model = dataclasses.replace(model, reference=begun.start or begun.name)
        data = dataclasses.replace(config.data, **self.data) if stage.part == "train" else config.data
        reward = config.reward if self.reward is None else self.reward
        return dataclasses.replace(config, model=model, data=data, reward=reward)


def _candidates(folder: Path) -> dict[str, Any]:
    """Return fields of `DataConfig`: the candidates, and the rows held out from their prompts."""
    heldout = folder / HELDOUT
    held = {"heldout": str(heldout)} if heldout.exists() else {}
    # Chosen of the prompts, before they were drawn for:
    chosen = ("max_prompts", "select", "select_by", "select_per_source", "rates", "cap", "temperature")
    done = {name: getattr(DataConfig, name) for name in chosen}
    as_written = {"format": "auto", "columns": {}, "expected_rows": None}
    return {"train": str(folder / CANDIDATES), **as_written, **done, **held}


def _make_folder(folder: Path, if_exists: str) -> Path:
    """Make the folder of all stages."""
    number, made = 2, folder
    while if_exists == "new" and made.exists():
        made = folder.with_name(f"{folder.name}-{number}")
        number += 1
    if if_exists == "overwrite":
        for earlier in (made, *made.glob("[0-9]*-*")):  # a single run of this name, or all stages of a recipe
            if is_run(earlier):
                shutil.rmtree(earlier)
    if is_run(made):
        raise UserError(
            f"{made} holds a single run, and this command has several stages, which would lie beside it; give another "
            "run_name=, or if_exists=overwrite."
        )
    made.mkdir(parents=True, exist_ok=True)
    return made


def _learns_turns(method: Method) -> bool:
    """Whether it learns from demonstrations, those that it mixes in too."""
    return method.unit == "demonstration" or bool(method.mixing)
