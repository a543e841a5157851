"""Does a run: objects from `assemble`, then drawing or training; every way it can end has its exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.candidates.store import drawn_otherwise
from align.cli.console import hide_noise, process_count, report, say
from align.cli.launch.free_checks import warn_of
from align.cli.launch.recipe import CANDIDATES, HELDOUT, Recipe
from align.cli.launch.resume import command_inputs, is_finished
from align.cli.launch.run import Run, Scorers, check_data, make_scorers
from align.errors import ServiceError, UserError
from align.model.sources import require_loadable
from align.runs import run_folder
from align.system.launcher import require_no_plugin
from align.system.signals import Interrupted, late_signal
from align.training.identity import chooses_best

if TYPE_CHECKING:
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Beside

__all__ = ["execute", "execute_all"]


def execute_all(runs: Run | Recipe) -> int:
    """Do a run or all stages of a recipe; returns the exit code."""
    return runs.execute(execute) if isinstance(runs, Recipe) else execute(runs)


def execute(run: Run) -> int:
    """Do the run, or say what it would do; returns the exit code.

    Raises:
        UserError: Data, model and settings do not fit together.
    """
    config = run.config
    if config.stage == "sample" and run.method.candidates is None:
        raise UserError(
            f"stage=sample: method={config.method} draws no candidates as it is set; set method.samples where it has "
            "this setting, or choose a method that learns from candidates."
        )
    require_no_plugin()
    require_loadable(config.model, config.adapter)  # in a recipe, what a stage before this one has left
    scorers = make_scorers(run)
    _say_if_nothing_chooses(run, scorers)
    _say_if_drawn_otherwise(run)
    if config.trainer.learning_rate == 0 and config.stage != "sample":
        report("Warning: trainer.learning_rate=0 trains nothing; leave it out for the method's own.")
    hide_noise()
    folder = Path(config.output_root) / config.run_name
    if config.if_exists == "resume" and _on_first(lambda: is_finished(run, scorers)):
        say(f"This run is finished: {folder}")
        return 0
    if config.if_exists != "new":
        _on_first(lambda: run_folder.require_free(folder))
    _on_first(lambda: check_data(config))
    if config.sampling.engine == "vllm" and run.method.generates and not config.dry_run:
        from align.sampling.engine.vllm_server import require_server  # no other run needs a client

        _on_first(lambda: require_server(config.sampling))
    if not config.dry_run:
        _require_place(folder, config.plain())
    return _carry_out(run, scorers)


def _require_place(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse processes of different settings, and a place that cannot be written or is not one for all of them."""
    if process_count() == 1:
        run_folder.require_writable(folder)
    else:
        from align.system.processes import Processes

        Processes().require_same(settings)
        run_folder.require_one_disk(folder, Processes())


def _on_first(look: Callable[[], Any]) -> Any:
    """Return what the first process sees; a single one needs no torch for it."""
    if process_count() == 1:
        return look()
    from align.system.processes import Processes

    return Processes().on_first(look)


def _carry_out(run: Run, scorers: Scorers) -> int:
    """Load, and do the run: from here on torch is needed."""
    from align.cli.launch import assemble
    from align.cli.launch.dry_run import dry_run
    from align.system.processes import Processes, tell_processes
    from align.training.step import TrainingError

    config = run.config
    processes = Processes()  # joins the processes that torchrun or accelerate started, on the CPU too
    architecture = assemble.read_architecture(run)
    try:
        if late := max(processes.gather(late_signal())):  # to the run before this one, of a recipe or sweep
            raise Interrupted(late, None)
        if config.dry_run:
            dry_run(run, scorers, architecture)
        elif config.stage == "sample":
            _sample(run, scorers)
        else:
            _train(run, scorers)
    except Interrupted as interrupted:
        interrupted.run_name = run.part_of or interrupted.run_name or config.run_name
        report(f"Run {interrupted.run_name}: {interrupted}.")
        return interrupted.exit_code
    except (ServiceError, TrainingError) as error:
        report(f"Error: {error}")
        tell_processes(str(error))
        return 1
    return 0


def _say_if_nothing_chooses(run: Run, scorers: Scorers) -> None:
    """Say before a run, not after it, that its evaluations cannot choose ``best/``."""
    config = run.config
    if config.stage == "sample" or not chooses_best(run.method, config.trainer):
        return
    if not scorers.evaluation:
        say("Note: no scorer chooses a best policy while it trains, so best/ is not kept; name an evaluation.scorer.")
    elif not config.evaluation.prompts or (config.data.heldout is None and not config.data.heldout_size):
        say("Note: no held-out prompt is answered, so best/ is not kept; see evaluation.prompts and data.heldout.")


def _say_if_drawn_otherwise(run: Run) -> None:
    """Say which settings of drawing have no effect, since the candidates are there and were drawn with others."""
    config, plan = run.config, run.method.candidates
    if config.stage != "train" or plan is None or not isinstance(config.data.train, str):
        return
    if found := drawn_otherwise(config.data.train, plan):
        say(f"Note: {config.data.train} is learnt from as it was drawn: {'; '.join(found)}.")


def _train(run: Run, scorers: Scorers) -> None:
    from align.cli.launch import assemble
    from align.cli.launch.next_steps import next_steps
    from align.sampling.engine.engines import open_engine
    from align.scoring.reward_role import RoleScorer
    from align.training.trainer import Trainer

    config = run.config
    tokenizer, notes = assemble.read_tokenizer(config)
    train, heldout = assemble.load_data(config)
    assemble.try_scorers(run, scorers, train, heldout)
    examples, heldout_examples = assemble.tokenize_data(run, train, heldout, tokenizer)  # data errors before weights
    warn_of(run, (train, heldout), tokenizer, examples)
    policy = assemble.load_policy(config, tokenizer, notes)
    with open_engine(config.sampling, policy) as engine:
        trainer = Trainer(
            policy,
            Path(config.output_root) / config.run_name,
            dataclasses.replace(config.trainer, seed=config.seed),
            if_exists=config.if_exists,
            resume_world_size=config.resume_world_size,
            trackers=config.trackers,
            wandb=config.wandb,
            run_config=config.plain(),
            inputs=command_inputs(run, scorers),
            engine=engine,
        )
        reward = scorers.reward if run.needs_reward else None
        evaluation = scorers.evaluation
        if reward is not None and assemble.take_reward_role(policy, reward):
            role = RoleScorer(policy, name=reward.name)
            evaluation = tuple(role if scorer is reward else scorer for scorer in evaluation)
            reward = None
        evaluator = assemble.make_evaluator(config, policy, heldout, heldout_examples, evaluation)
        beside = _measure_rival(run, evaluator)
        mix = assemble.load_mix(run)
        result = trainer.fit(run.method, examples, heldout_examples, evaluator, scorer=reward, mix=mix, beside=beside)
    if run.is_last:
        answers = run.method.generates and "policy" in run.method.trains
        say(next_steps(result.folder, config.method, answers=answers))


def _measure_rival(run: Run, evaluator: Evaluator | None) -> list[Beside]:
    """Measure a model beside the one that training begins from, where there is one worth comparing with."""
    if run.rival is None or evaluator is None or not evaluator.scorers:
        return []
    from align.cli.launch import assemble
    from align.evaluation.measurement import Beside

    rival = assemble.load_policy(dataclasses.replace(run.config, model=run.rival.model))
    say(f"Answering held-out prompts with {run.rival.role} ({rival.name}) …")
    return [Beside(rival.name, run.rival.role, dataclasses.replace(evaluator, pairs=None).measure(rival))]


def _sample(run: Run, scorers: Scorers) -> None:
    """Draw what the method learns from into the folder of the run, with the rows that are held out."""
    from align.candidates.drawing import draw
    from align.candidates.plan import told_of_candidates
    from align.candidates.store import read_summary
    from align.cli.launch import assemble
    from align.data.writing import write_rows
    from align.runs.lineage import used
    from align.runs.tracker import log_candidates
    from align.sampling.engine.engines import open_engine
    from align.system.processes import Processes
    from align.system.randomness import derived_seed

    config, plan = run.config, run.method.candidates
    assert plan is not None
    assemble.require_rows_of_text(run)
    train, heldout = assemble.load_data(config)
    assemble.try_scorers(run, scorers, train, heldout)
    policy = assemble.load_policy(config)
    sources = [assemble.load_source(config, source) for source in plan.sources]

    def make_folder() -> Path:
        place, inputs = Path(config.output_root) / config.run_name, command_inputs(run, scorers)
        made = run_folder.begin(place, config.if_exists, config.plain(), inputs)
        data = config.data
        renamed = data.format != "auto" or any(data.columns.values())
        if heldout is not None and (data.heldout is None or renamed):
            write_rows(heldout, made / HELDOUT)
        until.enter_context(run_folder.alone(made))
        return made

    with ExitStack() as until:
        file = Processes().on_first(make_folder) / CANDIDATES
        reward = scorers.reward if run.needs_reward else None
        drawn = draw(
            [policy, *sources],
            train,
            plan,
            file,
            scorer=None if assemble.take_reward_role(policy, reward) else reward,
            max_length=config.trainer.max_length,
            seed=config.seed if run.round == 1 else derived_seed(config.seed, run.round),
            engine=until.enter_context(open_engine(config.sampling, policy)),
        )
    counts = read_summary(file) or {}
    if "wandb" in config.trackers and Processes().is_first:
        plain = config.plain()
        log_candidates(file.parent, config.wandb, plain, file=file, counts=counts, uses=used(train, plain))
    for line in told_of_candidates(counts, plan):
        say(line)
    say(f"{len(drawn):,} rows: {file}")
