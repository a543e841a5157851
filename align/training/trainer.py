"""The training loop: one for all methods.

The trainer knows no method by name. It tokenises the data, makes the run folder, and repeats: a batch, a step
(:mod:`align.training.step`), metrics, and now and then an evaluation or a checkpoint (:mod:`align.runs.checkpoint`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from rich.console import Console
from tqdm import tqdm

from align.errors import ScorerError, UserError
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Measurement, compare
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.runs import folder as runfolder
from align.runs import report
from align.runs.checkpoint import Checkpoint, CheckpointStore
from align.runs.final import replace_policy, write_final
from align.runs.folder import IfExists
from align.runs.tracker import Tracker, read_records
from align.scoring.scorer import Scorer
from align.settings.config import TrainerConfig, WandbConfig
from align.system.processes import on_first, process_state
from align.system.randomness import seed_everything
from align.system.signals import Interrupted, StopRequest
from align.training.feed import Feed
from align.training.measuring import Measuring
from align.training.optimizer import make_optimizer, make_schedule
from align.training.plan import Plan, identity, method_settings
from align.training.rollout import Rollouts
from align.training.state import TrainingState
from align.training.step import Stepper, StepResult, TrainingError
from align.training.watch import Watch

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences
    from align.method.base import Method
    from align.model.policy import Policy

_log = logging.getLogger(__name__)
_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left."""

    folder: Path
    steps: int
    metrics: Mapping[str, float]
    """Of the last step."""
    evaluation: Mapping[str, Any] | None
    """The content of ``evaluation.json``; None without an evaluator."""


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
        wandb: WandbConfig | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            policy: The policy; its roles are added as the method asks.
            output_dir: Folder of the run. An existing one is not touched: see ``if_exists``.
            config: Optimisation settings; ``None`` values take the default of the method.
            if_exists: ``new`` (next free ``-2``, ``-3`` …), ``resume`` or ``overwrite``.
            wandb: Weights & Biases settings; default disabled.
            run_config: What ``config.yaml`` shall hold; default: the settings of method and trainer.
        """
        self.policy = policy
        self.output_dir = Path(output_dir)
        self.config = config or TrainerConfig()
        self.if_exists: IfExists = if_exists
        self.wandb = wandb
        self.run_config = run_config
        process_state()
        self.accelerator = Accelerator()
        if self.accelerator.distributed_type not in _SUPPORTED:
            raise UserError(
                f"accelerate is set up for {self.accelerator.distributed_type.value}, but this version trains on one "
                "device or data-parallel (MULTI_GPU, MULTI_CPU); run `accelerate config` again."
            )
        self.console = Console(quiet=not self.accelerator.is_main_process)

    def fit(
        self,
        method: Method,
        train: Preferences | TokenizedPreferences,
        heldout: Preferences | TokenizedPreferences | None = None,
        evaluator: Evaluator | None = None,
        *,
        scorer: Scorer | None = None,
        mix: Preferences | None = None,
    ) -> TrainResult:
        """Train, evaluate before and after, and write the run folder.

        Args:
            method: What to do.
            train: What to learn from; for an on-line method its prompts. Tokenised examples are taken as they are
                (:func:`align.training.feed.tokenize_for`).
            heldout: For the method's own metrics, likewise.
            evaluator: Measures the policy before and after, and every ``eval_steps``.
            scorer: Rewards what an on-line method draws; None: the policy's reward role.
            mix: Demonstrations an on-line method mixes in (PPO-ptx); None: the preferred responses of ``train``.

        Raises:
            UserError: Settings, data or an earlier run in the folder do not allow it.
            TrainingError: Loss or gradient became infinite, memory ran out, or the scorer failed.
            Interrupted: SIGINT or SIGTERM; a checkpoint was written.
        """
        stop = StopRequest()
        with stop.listening():
            return _Run(self, method, train, heldout, evaluator, scorer, mix, stop).execute()


class _Run:
    """One call of :meth:`Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        method: Method,
        train: Preferences | TokenizedPreferences,
        heldout: Preferences | TokenizedPreferences | None,
        evaluator: Evaluator | None,
        scorer: Scorer | None,
        mix: Preferences | None,
        stop: StopRequest,
    ) -> None:
        self.policy, self.method, self.config = trainer.policy, method, trainer.config
        self.accelerator, self.console = trainer.accelerator, trainer.console
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.stop, self.trainer = stop, trainer
        self.evaluator = evaluator if method.generates else None
        config = self.config
        seed_everything(config.seed)
        self.feed = Feed(self.policy, method, config, self.accelerator, train=train, heldout=heldout, mix=mix)
        self.data = self.feed.train.data
        self.policy.require(method.roles)
        if config.gradient_checkpointing:
            self.policy.recompute_activations(method.trains)
        self.plan = Plan.of(config, method, examples=len(self.data), adapters=self.policy.uses_adapters)
        trained = self.policy.parameters(method.trains)
        self.optimizer = make_optimizer(trained, config, self.plan.learning_rate)
        self.schedule = make_schedule(
            self.optimizer, self.plan.schedule, warmup=self.plan.warmup, steps=self.plan.steps
        )
        self.stepper = Stepper(
            self.policy,
            method,
            self.accelerator,
            self.optimizer,
            tokens_per_microbatch=config.tokens_per_microbatch,
            max_grad_norm=config.max_grad_norm,
            precision=config.precision,
        )
        self.rollouts: Rollouts | None = None
        if isinstance(method, OnlineMethod):
            self.rollouts = Rollouts(
                self.policy, method, self.data.preferences, scorer, self.stepper, self.accelerator, seed=config.seed
            )
        self.state = TrainingState(self.policy, method, self.optimizer, self.schedule, self.rollouts, self.rank)

    # The run from beginning to end

    def execute(self) -> TrainResult:
        same_run = identity(self.method, self.config, self.plan, self.data, self.policy, self.world)
        self.folder = on_first(
            lambda: runfolder.begin(self.trainer.output_dir, self.trainer.if_exists, self._description())
        )
        self.store = CheckpointStore(
            self.folder / "checkpoints",
            same_run,
            keep=self.config.keep_checkpoints,
            rank=self.rank,
            barrier=self.accelerator.wait_for_everyone,
        )
        checkpoint = self._find_checkpoint()
        if (finished := self._already_finished()) is not None:
            return finished
        self.feed.cache_columns(self.stepper, self._leave_precomputing)
        self.tracker = Tracker(
            self.folder, enabled=self.rank == 0, wandb=self.trainer.wandb, config=self._description()
        )
        self.measuring = Measuring(
            self.policy,
            self.stepper,
            self.tracker,
            self.console,
            evaluator=self.evaluator,
            heldout=self.feed.heldout,
            rank=self.rank,
            world=self.world,
            leave=self._leave_evaluation,
            shown=self.config.samples,
        )
        self.watch = Watch(self.rollouts.method, self.tracker, self.console) if self.rollouts is not None else None
        exit_code = 1
        try:
            self._announce(checkpoint)
            with self._saved_if_scorer_fails(0):
                before = self.measuring.start(resumed=self.trainer.if_exists == "resume")
            first = self._restore(checkpoint)
            last = self._train(first)
            result = self._finish(before, last)
            exit_code = 0
            return result
        except Interrupted as interrupted:
            exit_code = interrupted.exit_code
            raise
        finally:
            self.tracker.close(exit_code)

    def _train(self, first: int) -> Mapping[str, float]:
        """Steps ``first + 1`` to the last; returns the metrics of the last one."""
        config, plan = self.config, self.plan
        metrics: dict[str, float] = {}
        bar = tqdm(total=plan.steps, initial=first, disable=self.rank != 0, desc="training", unit="step")
        with bar:
            for step in range(first + 1, plan.steps + 1):
                metrics = self._step(step) or metrics
                bar.update()
                bar.set_postfix(self._headline(metrics))
                self._stop_if_asked(step)
                if config.eval_steps and step % config.eval_steps == 0 and step < plan.steps:
                    with self._saved_if_scorer_fails(step):
                        self._keep_best(step, self.measuring.evaluate(step))
                    self._stop_if_asked(step)
                if (config.save_steps and step % config.save_steps == 0) or step == plan.steps:
                    self._save(step)
        return metrics

    def _step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its metrics, none where a roll-out was left early."""
        began = time.perf_counter()
        rate = float(self.schedule.get_last_lr()[0])
        with self._saved_if_scorer_fails(step - 1):
            batch = self._batch(step)
        metrics: dict[str, float] = {}
        if batch is not None:
            result = self.stepper.step(batch, self.feed.mixed(step - 1, self.plan))
            metrics = self._step_metrics(step, rate, result, time.perf_counter() - began)
            self._leave_rollout_early(metrics)
            drawn = self.rollouts is not None and self.rollouts.new(step)
            if self.rollouts is not None and self.watch is not None and drawn:
                metrics |= self.rollouts.metrics
                self.watch.look(step, metrics, self.measuring.done)
            if step % self.config.log_steps == 0 or step == self.plan.steps or drawn:
                self.tracker.log(step, metrics)
        self.schedule.step()
        return metrics

    def _finish(self, before: Measurement | None, last: Mapping[str, float]) -> TrainResult:
        with self._saved_if_scorer_fails(self.plan.steps):
            after = self.measuring.evaluate(self.plan.steps)
        self._keep_best(self.plan.steps, after)
        evaluation: dict[str, Any] = {}
        heldout = self.feed.heldout.data if self.feed.heldout is not None else None
        with self.stepper.autocast():
            evaluation.update(
                self.method.report(self.policy, self.data, heldout, self.folder if self.rank == 0 else None)
            )
        if before is not None and after is not None:
            compared = compare(before, after, seed=self.config.seed)
            evaluation |= compared | {"metrics": compared["metrics"] | evaluation.get("metrics", {})}
            report.print_samples(before.samples, after.samples, self.console, limit=self.config.samples)
        if self.rank == 0:
            if evaluation:
                runfolder.write_json(self.folder / "evaluation.json", evaluation)
                report.print_evaluation(evaluation, self.console)
            report.plot_curves(self.folder / "metrics.jsonl", self.folder / "curves.png")
            settings = {**method_settings(self.method), **dataclasses.asdict(self.plan)}
            write_final(self.policy, self.folder / "final", settings, evaluation or None)
        self.accelerator.wait_for_everyone()
        self.console.print(f"Run folder: {self.folder}", soft_wrap=True)
        return TrainResult(self.folder, self.plan.steps, last, evaluation)

    def _already_finished(self) -> TrainResult | None:
        """The result of an earlier, complete run in this folder that is asked to resume."""
        if self.trainer.if_exists != "resume" or not (self.folder / "final").exists():
            return None
        self.console.print(f"This run is finished: {self.folder}", soft_wrap=True)
        evaluation = self.folder / "evaluation.json"
        records = read_records(self.folder / "metrics.jsonl")
        return TrainResult(
            folder=self.folder,
            steps=self.plan.steps,
            metrics=next(record for record in reversed(records) if "learning_rate" in record),
            evaluation=json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.exists() else None,
        )

    def _batch(self, step: int) -> Batch | None:
        """This rank's share of a step; None where a roll-out was left early."""
        if self.rollouts is None:
            return self.feed.batch(step - 1, self.plan)
        return self.rollouts.update(step, partial(self.feed.prompts, plan=self.plan))

    def _leave_rollout_early(self, metrics: Mapping[str, float]) -> None:
        if self.rollouts is not None and self.rollouts.method.stops_early(metrics):
            self.rollouts.abandoned = True

    # Measuring

    def _keep_best(self, step: int, measured: Measurement | None) -> None:
        """Write the policy into ``best/`` if it is the best by the merit of its method so far."""
        merit = self.rollouts.method.merit(measured) if self.rollouts and measured and self.config.eval_steps else None
        if merit is None or self.rank != 0:
            return
        file = self.folder / "best" / "merit.json"
        if file.exists() and json.loads(file.read_text(encoding="utf-8"))["merit"] >= merit:
            return
        replace_policy(self.policy, file.parent, {"step": step, "merit": merit})

    def _leave_precomputing(self) -> None:
        if self.stop.signum:
            raise Interrupted(self.stop.signum, None)

    def _leave_evaluation(self, step: int) -> None:
        """Between batches of an evaluation; with one rank a signal is answered here, with several at the next step."""
        if self.stop.signum and self.world == 1:
            self._stop_if_asked(step)

    def _step_metrics(self, step: int, rate: float, result: StepResult, seconds: float) -> dict[str, float]:
        return {
            "epoch": step / self.plan.steps_per_epoch,
            **result.metrics,
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens": float(result.tokens),
            "tokens_per_second": result.tokens / seconds,
            "seconds": seconds,
        }

    def _headline(self, metrics: Mapping[str, float]) -> dict[str, str]:
        names = dict.fromkeys(("loss", self.method.headline, "tokens_per_second"))
        if self.rollouts is not None:
            metrics = {**self.rollouts.metrics, **metrics}
        short = {"tokens_per_second": "tok/s"}
        return {short.get(name, name): f"{metrics[name]:.3g}" for name in names if name in metrics}

    # Stopping, saving, resuming

    def _stop_if_asked(self, step: int) -> None:
        """At a step boundary: if any rank caught a signal, all write the checkpoint and leave."""
        caught = max(gather_object([self.stop.signum])) if self.world > 1 else self.stop.signum
        if caught:
            folder = self._save(step) if step > 0 else None
            raise Interrupted(caught, folder)

    @contextmanager
    def _saved_if_scorer_fails(self, step: int) -> Generator[None]:
        """Scores that cannot be had end the run, after a checkpoint of the steps that are done."""
        try:
            yield
        except ScorerError as error:
            kept = f" Step {self._save(step).name[5:].lstrip('0')} is saved." if step > 0 else ""
            raise TrainingError(f"{error}{kept} Continue with if_exists=resume.") from error

    def _save(self, step: int) -> Path:
        return self.state.save(self.store, step, self.plan.steps)

    def _restore(self, checkpoint: Checkpoint | None) -> int:
        """Go on from the checkpoint, or begin; returns the number of steps that are done."""
        done = 0 if checkpoint is None else checkpoint.step
        if checkpoint is None:
            self.method.begin(self.policy)
        else:
            self.state.restore(checkpoint)
        self.tracker.truncate(done)
        if checkpoint is not None and self.watch is not None:
            self.watch.recall()
            self.measuring.recall()
        return done

    def _find_checkpoint(self) -> Checkpoint | None:
        if self.trainer.if_exists != "resume":
            return None
        checkpoint, skipped = self.store.latest()
        for sentence in skipped:
            self.console.print(sentence)
        return checkpoint

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        plan, (trainable, total) = self.plan, self.policy.parameter_count()
        print_ = self.console.print
        for note in (*self.policy.notes, *(self.evaluator.notes if self.evaluator is not None else ())):
            print_(note)
        for batches in (self.feed.train, self.feed.heldout):
            if batches is not None and (batches.data.report.rejected or batches.data.report.noted):
                print_(batches.data.report.summary(), soft_wrap=True, markup=False, highlight=False)
        print_(
            f"{type(self.method).__name__}: {len(self.data):,} examples, {plan.steps:,} steps of {plan.batch_size}, "
            f"learning rate {plan.learning_rate:g}; training {trainable:,} of {total:,} parameters"
        )
        if checkpoint is not None:
            print_(f"Resuming after step {checkpoint.step} from {checkpoint.folder}", soft_wrap=True)

    def _description(self) -> dict[str, Any]:
        if self.trainer.run_config is not None:
            return {**self.trainer.run_config, "resolved": dataclasses.asdict(self.plan)}
        return {
            "method": method_settings(self.method),
            "model": self.policy.model.config.name_or_path,
            "trainer": dataclasses.asdict(self.config),
            "resolved": dataclasses.asdict(self.plan),
        }
