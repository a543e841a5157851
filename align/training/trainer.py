"""The training loop: one for all methods.

The trainer knows no method by name. It tokenises the data, makes the run folder, and repeats: a batch
(:mod:`align.training.feed`), a step (:mod:`align.training.step`), metrics, and now and then an evaluation
(:mod:`align.training.monitor`) or a checkpoint (:mod:`align.training.state`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast

from tqdm import tqdm

from align.data import Preferences, TokenizedPreferences
from align.errors import require_kind
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Beside, Measurement
from align.method.base import Method
from align.model.policy import Policy
from align.reporting.cost import write_cost
from align.reporting.data_summary import write_data_summary
from align.reporting.page import write_report
from align.runs import run_folder
from align.runs.card import Origin
from align.runs.checkpoint import Checkpoint, CheckpointStore, is_done
from align.runs.final_weights import write_final
from align.runs.lineage import used
from align.runs.result import TrainResult
from align.runs.run_folder import IfExists
from align.runs.services import require_installed
from align.runs.tracker import Tracker
from align.sampling.engine.engines import Engine, LocalEngine
from align.scoring.checked_scores import check_scorers
from align.scoring.scorer import Scorer
from align.settings.config import TrackerName, TrainerConfig, WandbConfig, check_trackers
from align.system.console import PlainConsole
from align.system.files import disk_faults, remove_leftovers
from align.system.processes import Processes, require_data_parallel
from align.system.randomness import seed_everything
from align.system.signals import Interrupted, StopRequest
from align.training.callbacks import Callback, Callbacks
from align.training.feed import Feed
from align.training.identity import ACCEPTED_BY, FOLLOWS, WORLD_SIZE, method_settings, run_identity
from align.training.monitor import Monitor
from align.training.optimizer import make_optimizer, make_schedule, next_rate
from align.training.rollout import make_source
from align.training.state import TrainingState
from align.training.step import Stepper, TrainingError


class Trainer:
    """Trains a policy with any method on preference data.

    ::

        Trainer(policy, output_dir="runs/dpo").fit(DPO(beta=0.1), Preferences.load("pairs.jsonl"))
    """

    def __init__(
        self,
        policy: Policy,
        output_dir: str | Path,
        config: TrainerConfig | None = None,
        *,
        if_exists: IfExists = "new",
        resume_world_size: Literal["same", "any"] = "same",
        trackers: Sequence[TrackerName] = (),
        wandb: WandbConfig | None = None,
        run_config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        engine: Engine | None = None,
    ) -> None:
        """
        Args:
            policy: The policy; the roles that the method asks are added.
            output_dir: Folder of the run. An existing one is not touched: see ``if_exists``.
            config: Optimisation settings; ``None`` values take the default of the method.
            if_exists: ``new`` (next free ``-2``, ``-3`` …), ``resume`` or ``overwrite``.
            resume_world_size: ``any``: resumed by another number of processes too.
            trackers: Told of metrics and samples, beside the folder.
            wandb: Settings of Weights & Biases.
            run_config: Content of ``config.yaml``; default: the settings of method and trainer.
            inputs: Identity of all that ``run_config`` names (:func:`align.runs.run_folder.begin`).
            engine: Draws from the policy (:func:`align.sampling.engine.engines.open_engine`); None: the built-in loop.
        """
        require_kind(Policy, "give what Policy.load returns", policy=policy)
        require_kind((TrainerConfig, NoneType), "give a TrainerConfig", config=config)
        self.policy, self.engine = policy, engine or LocalEngine(policy)
        self.output_dir, self.config = Path(output_dir), config or TrainerConfig()
        self.if_exists: IfExists = if_exists
        self.free = (WORLD_SIZE,) if resume_world_size == "any" else ()
        check_trackers(trackers, wandb or WandbConfig())
        require_installed(trackers)
        self.trackers, self.wandb, self.run_config, self.inputs = trackers, wandb, run_config, inputs
        self.processes = Processes(self.config.precision)
        require_data_parallel()
        run_folder.require_one_disk(self.output_dir, self.processes)
        policy.shard(self.config.sharding)
        self.console = PlainConsole(quiet=not self.processes.is_first)

    def fit(
        self,
        method: Method,
        train: Preferences | TokenizedPreferences,
        heldout: Preferences | TokenizedPreferences | None = None,
        evaluator: Evaluator | None = None,
        *,
        scorer: Scorer | None = None,
        mix: Preferences | None = None,
        beside: Sequence[Beside] = (),
        callbacks: Sequence[Callback] = (),
    ) -> TrainResult:
        """Train, evaluate before and after, and write the run folder.

        Args:
            method: The method to train with.
            train: The training data; of an on-line method its prompts. Tokenised data has the unit of the method
                (:func:`align.training.feed.tokenize_for`).
            heldout: For the method's own metrics.
            evaluator: Measures the policy before and after, and every ``eval_steps``.
            scorer: Rewards the responses an on-line method draws; None: the policy's reward role.
            beside: Measurements of other models by the evaluator; the win rate over each is reported too.
            mix: Demonstrations an on-line method mixes in (PPO-ptx); None: the preferred responses of ``train``.
            callbacks: Told of steps, evaluations and checkpoints.

        Raises:
            UserError: Settings, data or an earlier run in the folder do not allow it.
            TrainingError: Loss or gradient became infinite, memory ran out, or a scorer or code of the user failed.
            Interrupted: SIGINT or SIGTERM; a checkpoint was written.
        """
        if scorer is not None:
            check_scorers(scorer=scorer)
        stop = StopRequest()
        with stop.listening():
            feed = Feed(self.policy, method, self.config, self.processes, train=train, heldout=heldout, mix=mix)
            asked = (self.run_config or {}).get("reward") if method.needs_reward else None
            reward = scorer.name if scorer is not None else (asked or {}).get("scorer")
            origin = Origin.of(feed.train.data.preferences, cast(Any, getattr(heldout, "preferences", heldout)), reward)
            told = Callbacks(callbacks, enabled=self.processes.is_first)
            return _Run(self, method, feed, evaluator, scorer, mix, stop, beside, origin, told).execute()


class _Run:
    """One call of :meth:`Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        method: Method,
        feed: Feed,
        evaluator: Evaluator | None,
        scorer: Scorer | None,
        mix: Preferences | None,
        stop: StopRequest,
        beside: Sequence[Beside],
        origin: Origin,
        callbacks: Callbacks,
    ) -> None:
        config = trainer.config
        self.trainer, self.method, self.config, self.stop = trainer, method, config, stop
        self.policy, self.console, self.processes = trainer.policy, trainer.console, trainer.processes
        self.evaluator, self.beside = evaluator if method.generates else None, beside
        self.scorer, self.mix, self.origin, self.callbacks = scorer, mix, origin, callbacks
        seed_everything(config.seed)
        self.feed, self.plan = feed, feed.plan
        self.policy.require(method.roles)
        if config.residual_dropout:
            self.policy.drop_residuals(method.trains, config.residual_dropout)
        if config.gradient_checkpointing:
            self.policy.recompute_activations(method.trains)
        self.optimizer = make_optimizer(self.policy.parameters(method.trains), config, self.plan.learning_rate)
        plan, final = self.plan, config.final_learning_rate
        self.schedule = make_schedule(self.optimizer, plan.schedule, warmup=plan.warmup, steps=plan.steps, final=final)
        self.stepper = Stepper(
            self.policy,
            method,
            self.processes,
            self.optimizer,
            tokens_per_microbatch=config.tokens_per_microbatch,
            max_grad_norm=config.max_grad_norm,
        )
        self.source = make_source(self.feed, self.policy, method, scorer, self.processes, config, trainer.engine)
        composed = trainer.run_config or {
            "method": method_settings(method),
            "model": self.policy.name,
            **{"trainer": dataclasses.asdict(config), "sampling": {"engine": trainer.engine.name}},
        }
        answers = {"trains": list(method.trains), "generates": method.generates, "tie": method.tie}
        self.description = {**composed, "resolved": {**dataclasses.asdict(self.plan), **answers}}

    def execute(self) -> TrainResult:
        """The run from beginning to end."""
        told = f"{self.trainer.output_dir} cannot be written", "mount it again, then continue with if_exists=resume"
        with disk_faults(*told), ExitStack() as until:
            return self._execute(self._open_folder(until))

    def _execute(self, checkpoint: Checkpoint | None) -> TrainResult:
        began = time.perf_counter()
        if self.trainer.if_exists == "resume":
            if is_done(self.folder, checkpoint, self.plan.steps):
                self.console.print(f"This run is finished: {self.folder}", soft_wrap=True)
                return TrainResult.read(self.folder, self.plan.steps)
            if (self.folder / "final").exists() and self.processes.is_first:  # it gets more steps
                run_folder.describe(self.folder, self.description)
        self.feed.cache_columns(self.state.stop_unsaved)
        self.tracker = Tracker(
            self.folder,
            enabled=self.processes.is_first,
            trackers=self.trainer.trackers,
            wandb=self.trainer.wandb,
            config=self.description,
            uses=used(self.feed.train.data.preferences, self.description) if self.trainer.trackers else (),
        )
        self.monitor = Monitor(
            self.stepper,
            self.tracker,
            self.console,
            self.config,
            folder=self.folder,
            settings=self.description,
            plan=self.plan,
            evaluator=self.evaluator,
            heldout=self.feed.heldout,
            between=self.state.stop_between_batches,
            engine=self.trainer.engine,
        )
        exit_code = 1
        try:
            self._announce(checkpoint)
            if self.processes.is_first:
                heldout = self.feed.heldout.data if self.feed.heldout is not None else None
                write_data_summary(self.folder, self.feed.train.data, heldout, self.policy.tokenizer)
            with self.state.saved_if_it_fails(0):
                before = self.monitor.start(resumed=self.trainer.if_exists == "resume")
                if checkpoint is None:
                    self._tell_of_evaluation(0, before)
            done = self._begin(checkpoint)
            last = self._train(done)
            evaluation = self._evaluate_at_the_end(before)
            if self.processes.is_first:
                write_cost(self.folder, seconds=time.perf_counter() - began, first_step=done)
            self._finish(evaluation)
            exit_code = 0
            return TrainResult(self.folder, self.plan.steps, last, evaluation)
        except Interrupted as interrupted:
            exit_code, interrupted.run_name = interrupted.exit_code, self.folder.name
            raise
        except TrainingError as error:
            self.monitor.fail(error)
            raise
        finally:
            self.tracker.close(exit_code)
            self.policy.name += f", trained in {self.folder.name}"  # what a later run of this object begins from

    def _train(self, done: int) -> Mapping[str, float]:
        """Do the steps after ``done``; returns the metrics of the last one."""
        steps, state = self.plan.steps, self.state
        metrics: Mapping[str, float] = {}
        self._evaluate_if_due(done)  # stopped in the middle of its evaluation
        with tqdm(total=steps, initial=done, disable=self.console.quiet, desc="training", unit="step") as bar:
            for step in range(done + 1, steps + 1):
                metrics = self._step(step) or metrics
                bar.update()
                bar.set_postfix(self.monitor.headline)
                state.stop_if_asked(step)
                self._evaluate_if_due(step)
                state.save_if_due(step)
        return metrics

    def _evaluate_if_due(self, step: int) -> None:
        """Measure the model after a step where that is to be done and not yet logged."""
        every, state = self.config.eval_steps, self.state
        if every and step % every == 0 and state.evaluated < step < self.plan.steps:
            with state.saved_if_it_fails(step):
                self._tell_of_evaluation(step, self.monitor.evaluate(step))
            state.evaluated = step
            state.stop_if_asked(step)

    def _tell_of_evaluation(self, step: int, measured: Measurement | None) -> None:
        if measured is not None:
            self.callbacks.tell(lambda told: told.on_evaluation(step, measured))

    def _step(self, step: int) -> Mapping[str, float]:
        """One optimiser step; returns its metrics, of one that the source left out those of a roll-out made for it."""
        began = time.perf_counter()
        rate = float(self.schedule.get_last_lr()[0])
        with self.state.saved_if_it_fails(step - 1):
            self.state.begin_step(step)
            batch = self.source.batch(step)
            result = self.stepper.step(batch, self.feed.mixed(step)) if batch is not None else None
        next_rate(self.schedule)
        if result is None and not self.source.metrics:
            return {}
        metrics = {"epoch": step / self.plan.steps_per_epoch, "learning_rate": rate}
        metrics |= result.logged(time.perf_counter() - began) if result is not None else {}
        with self.state.saved_if_it_fails(step):
            if result is not None:
                self.source.updated(metrics)
            record = self.monitor.log(step, metrics, rollout=self.source.metrics)
            self.callbacks.tell(lambda told: told.on_step(step, record))
            return record

    def _open_folder(self, until: ExitStack) -> Checkpoint | None:
        """Make the run folder and the state that is saved in it; returns the checkpoint of a run to resume.

        No other process can take the folder before the end of ``until``.
        """
        trainer, processes = self.trainer, self.processes
        identity = run_identity(
            self.method,
            self.config,
            self.policy,
            self.feed.train.data,
            scorer=self.scorer,
            mix=self.mix,
            evaluator=self.evaluator,
            world_size=processes.world_size,
            engine=trainer.engine.name,
        )
        processes.require_same(identity.learnt)

        def begin() -> Path:
            folder = run_folder.begin(trainer.output_dir, trainer.if_exists, self.description, trainer.inputs)
            until.enter_context(run_folder.alone(folder))
            return folder

        self.folder = processes.on_first(begin)
        store = CheckpointStore(
            self.folder / "checkpoints",
            identity,
            follows=FOLLOWS,
            free=trainer.free,
            accepted_by=ACCEPTED_BY,
            keep=self.config.keep_checkpoints,
            rank=processes.rank,
            barrier=processes.barrier,
        )
        until.callback(store.close)
        self.state = TrainingState(
            stepper=self.stepper,
            schedule=self.schedule,
            source=self.source,
            store=store,
            stop=self.stop,
            steps=self.plan.steps,
            save_steps=self.config.save_steps,
            callbacks=self.callbacks,
        )
        checkpoint, notes = store.latest() if trainer.if_exists == "resume" else (None, [])
        for sentence in notes:
            self.console.print(sentence, soft_wrap=True)
        return checkpoint

    def _begin(self, checkpoint: Checkpoint | None) -> int:
        """Begin, or go on from the checkpoint; returns the number of steps that are done."""
        if checkpoint is None:
            self.method.begin(self.policy)
            self.tracker.truncate(0, shown=self.config.samples)
            return 0
        self.state.restore(checkpoint)
        self.tracker.truncate(checkpoint.step, evaluated=self.state.evaluated, shown=self.config.samples)
        self.monitor.resume()
        return checkpoint.step

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        plan, (trainable, total) = self.plan, self.policy.parameter_count()
        notes = [*self.policy.notes, *(self.evaluator.notes if self.evaluator is not None else ())]
        if self.policy.roles.dropout and not self.method.dropout:
            notes.append(f"the adapters' dropout is off: {type(self.method).__name__} compares the policy's passes")
        for note in (*notes, *self.feed.notes()):
            self.console.print(note, soft_wrap=True)
        self.console.print(
            f"{type(self.method).__name__}: {len(self.feed.train):,} examples, {plan.steps:,} steps of "
            f"{plan.batch_size}, learning rate {plan.learning_rate:g}; training {trainable:,} of {total:,} parameters"
        )
        if checkpoint is not None:
            self.console.print(f"Resuming after step {checkpoint.step} from {checkpoint.folder}", soft_wrap=True)

    def _evaluate_at_the_end(self, before: Measurement | None) -> Mapping[str, Any]:
        with self.state.saved_if_it_fails(self.plan.steps):
            after = self.monitor.evaluate(self.plan.steps)
            self._tell_of_evaluation(self.plan.steps, after)
            return self.monitor.conclude(self.feed.train.data, before, after, self.beside)

    def _finish(self, evaluation: Mapping[str, Any]) -> None:
        """Write the report and, last of all, ``final/``: a run that has it is finished, and lacks nothing."""
        if self.processes.is_first:
            write_report(self.folder, finished=True)
            remove_leftovers(self.folder)
            settings = {**method_settings(self.method), **dataclasses.asdict(self.plan)}
            write_final(self.policy, self.folder / "final", self.method, settings, evaluation or None, self.origin)
            self.tracker.keep(self.folder / "final")
        self.processes.barrier()
        self.console.print(f"Run folder: {self.folder}", soft_wrap=True)
