"""The training loop: one for all methods.

The trainer knows no method by name. It tokenises the data, makes the run folder, and repeats: a batch, a step
(:mod:`align.step`), metrics, and now and then an evaluation or a checkpoint (:mod:`align.checkpoint`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast_object_list, gather_object
from rich.console import Console
from tqdm import tqdm

from align import report, runfolder
from align.batch import Batch
from align.checkpoint import Checkpoint, CheckpointStore
from align.config import TrainerConfig, WandbConfig
from align.errors import UserError
from align.evaluation import Evaluator, Measurement, compare
from align.export import write_final
from align.optimizer import load_optimizer, make_optimizer, make_schedule, save_optimizer
from align.plan import Plan, identity, method_settings
from align.processes import process_state
from align.randomness import epoch_order, load_random_state, save_random_state, seed_everything
from align.roles import Role
from align.runfolder import IfExists
from align.signals import Interrupted, StopRequest
from align.step import Stepper, StepResult, collect
from align.tracking import Tracker, read_records

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences
    from align.method import Method
    from align.policy import Policy

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
            config: Optimisation settings; ``None`` values take what is vetted for the method.
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
        train: Preferences,
        heldout: Preferences | None = None,
        evaluator: Evaluator | None = None,
    ) -> TrainResult:
        """Train, evaluate before and after, and write the run folder.

        Raises:
            UserError: Settings, data or an earlier run in the folder do not allow it.
            TrainingError: Loss or gradient became infinite, or memory ran out.
            Interrupted: SIGINT or SIGTERM; a checkpoint was written.
        """
        stop = StopRequest()
        with stop.listening():
            return _Run(self, method, train, heldout, evaluator, stop).execute()


class _Run:
    """One call of :meth:`Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        method: Method,
        train: Preferences,
        heldout: Preferences | None,
        evaluator: Evaluator | None,
        stop: StopRequest,
    ) -> None:
        self.policy, self.method, self.config = trainer.policy, method, trainer.config
        self.accelerator, self.console = trainer.accelerator, trainer.console
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.stop, self.trainer = stop, trainer
        self.evaluator = evaluator if "policy" in method.trains else None  # its answers are the policy's
        config = self.config
        limit = self.policy.max_positions
        if limit is not None and config.max_length > limit:
            raise UserError(
                f"trainer.max_length={config.max_length} is beyond the {limit} positions of the model; set "
                f"trainer.max_length={limit} or less."
            )
        seed_everything(config.seed)
        self.data = self._tokenize(train, config.max_length)
        # The limit on rejected rows guards the training data; held-out rows that do not fit are only counted.
        self.heldout = self._tokenize(heldout, config.max_length, max_rejected=1.0) if heldout is not None else None
        if not len(self.data):
            raise UserError("no row of the training data is left to learn from; see the counts of rejected rows.")
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
        self.cached: dict[str, torch.Tensor] = {}
        self.cached_heldout: dict[str, torch.Tensor] = {}

    # The run from beginning to end

    def execute(self) -> TrainResult:
        same_run = identity(self.method, self.config, self.plan, self.data, self.policy, self.world)
        self.folder = self._make_folder()
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
        self.cached = self._precompute(self.data)
        self.cached_heldout = self._precompute(self.heldout) if self.heldout is not None else {}
        self.tracker = Tracker(
            self.folder, enabled=self.rank == 0, wandb=self.trainer.wandb, config=self._description()
        )
        exit_code = 1
        try:
            self._announce(checkpoint)
            before = self._measure_start()
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
                began = time.perf_counter()
                rate = float(self.schedule.get_last_lr()[0])
                result = self.stepper.step(self._batch(step))
                self.schedule.step()
                metrics = self._step_metrics(step, rate, result, time.perf_counter() - began)
                bar.update()
                bar.set_postfix(self._headline(metrics))
                if step % config.log_steps == 0 or step == plan.steps:
                    self.tracker.log(step, metrics)
                self._stop_if_asked(step)
                if config.eval_steps and step % config.eval_steps == 0 and step < plan.steps:
                    self._evaluate(step)
                    self._stop_if_asked(step)
                if (config.save_steps and step % config.save_steps == 0) or step == plan.steps:
                    self._save(step)
        return metrics

    def _finish(self, before: Measurement | None, last: Mapping[str, float]) -> TrainResult:
        after = self._evaluate(self.plan.steps)
        evaluation: dict[str, Any] = {}
        with self.stepper.autocast():
            evaluation.update(
                self.method.conclude(self.policy, self.data, self.heldout, self.folder if self.rank == 0 else None)
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

    # Data

    def _tokenize(
        self, preferences: Preferences, max_length: int, max_rejected: float | None = None
    ) -> TokenizedPreferences:
        with self.accelerator.main_process_first():  # the other ranks read its cache
            return preferences.tokenize(
                self.policy.tokenizer, max_length=max_length, unit=self.method.unit, max_rejected=max_rejected
            )

    def _batch(self, step: int) -> Batch:
        """This rank's share of a step: the step's prompts, dealt by length so that ranks have equal work."""
        plan = self.plan
        epoch, position = divmod(step - 1, plan.steps_per_epoch)
        order = epoch_order(len(self.data), seed=self.config.seed, epoch=epoch)
        chosen = order[position * plan.batch_size : (position + 1) * plan.batch_size]
        by_length = sorted(chosen, key=lambda i: (-int(self.data.lengths[i]), i))
        return self._load(self.data, by_length[self.rank :: self.world], self.cached)

    def _load(self, data: TokenizedPreferences, indices: list[int], cached: Mapping[str, torch.Tensor]) -> Batch:
        batch = Batch.from_examples(data[i] for i in indices)
        return batch.with_columns(**{name: table[indices] for name, table in cached.items()})

    @torch.no_grad()
    def _precompute(self, data: TokenizedPreferences) -> dict[str, torch.Tensor]:
        """The method's cached columns for all of the data, by the policy as it is before the first step."""
        names = self.method.cached_columns
        if not names:
            return {}
        rows: list[tuple[int, dict[str, torch.Tensor]]] = []
        mine = list(range(self.rank, len(data), self.world))
        chunk = 256
        for start in tqdm(range(0, len(mine), chunk), disable=self.rank != 0, desc="reference"):
            if self.stop.signum:
                raise Interrupted(self.stop.signum, None)
            part = self._load(data, mine[start : start + chunk], {})
            # `rows` names rows of the dataset; here the place among the tokenised examples is needed.
            part = dataclasses.replace(part, rows=tuple(mine[start : start + chunk]))
            for micro in part.micro_batches(self.config.tokens_per_microbatch, self.policy.layout):
                with self.stepper.autocast():
                    done = self.method.precompute(self.policy, micro)
                rows.extend((row, {name: done[name][i].cpu() for name in names}) for i, row in enumerate(micro.rows))
        everyone = rows if self.world == 1 else gather_object(rows)
        everyone.sort(key=lambda item: item[0])
        return {name: torch.stack([columns[name] for _, columns in everyone]) for name in names}

    # Measuring

    def _evaluate(self, step: int) -> Measurement | None:
        """The method's own metrics on the held-out data (``eval/…``) and the evaluator's (``evaluation/…``)."""
        if self.heldout is not None and len(self.heldout):
            collected: dict[str, tuple[float, float]] = {}
            mine = list(range(self.rank, len(self.heldout), self.world))
            for start in range(0, len(mine), 64):
                self._leave_evaluation(step)
                batch = self._load(self.heldout, mine[start : start + 64], self.cached_heldout)
                collect(collected, self.stepper.measure(batch))
            metrics = self.stepper.reduce_metrics(collected)
            self.tracker.log(step, {f"eval/{name}": value for name, value in metrics.items()})
        return self._measure(step)

    def _measure_start(self) -> Measurement | None:
        """The evaluator's measurement of the start model; a resumed run has it in its log."""
        resumed: list[Any] = [None]
        if self.rank == 0 and self.evaluator is not None and self.trainer.if_exists == "resume":
            resumed[0] = self.tracker.read_evaluation(0)
        if self.world > 1:
            broadcast_object_list(resumed)
        return resumed[0] or self._measure(0)

    def _measure(self, step: int) -> Measurement | None:
        if self.evaluator is None:
            return None
        model = "start model" if step == 0 else f"model after step {step}"
        self.console.print(f"Answering held-out prompts with the {model} …")
        measurement = self.evaluator.measure(
            self.policy, rank=self.rank, world=self.world, between=lambda: self._leave_evaluation(step)
        )
        self.tracker.log_evaluation(step, measurement, shown=self.config.samples)
        return measurement

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
        short = {"tokens_per_second": "tok/s"}
        return {short.get(name, name): f"{metrics[name]:.3g}" for name in names if name in metrics}

    # Stopping, saving, resuming

    def _stop_if_asked(self, step: int) -> None:
        """At a step boundary: if any rank caught a signal, all write the checkpoint and leave."""
        caught = max(gather_object([self.stop.signum])) if self.world > 1 else self.stop.signum
        if caught:
            folder = self._save(step) if step > 0 else None
            raise Interrupted(caught, folder)

    def _save(self, step: int) -> Path:
        def shared(folder: Path) -> None:
            for role in self._saved_roles():
                self.policy.roles.save(role, folder / role)
            save_optimizer(self.optimizer, self.schedule, folder)

        def own(folder: Path) -> None:
            save_random_state(folder / f"random-{self.rank}.json")

        return self.store.save(step, {"steps": self.plan.steps}, shared=shared, own=own)

    def _restore(self, checkpoint: Checkpoint | None) -> int:
        """Put everything back as it was after the checkpoint's step; returns that step, 0 for a fresh start."""
        if checkpoint is None:
            self.tracker.truncate(0)
            return 0
        for role in self._saved_roles():
            self.policy.roles.load(role, checkpoint.folder / role)
        load_optimizer(self.optimizer, self.schedule, checkpoint.folder)
        load_random_state(checkpoint.folder / f"random-{self.rank}.json")
        self.tracker.truncate(checkpoint.step)
        return checkpoint.step

    def _find_checkpoint(self) -> Checkpoint | None:
        if self.trainer.if_exists != "resume":
            return None
        checkpoint, skipped = self.store.latest()
        for sentence in skipped:
            self.console.print(sentence)
        return checkpoint

    def _saved_roles(self) -> tuple[Role, ...]:
        """Trained roles, and the reference where it is an adapter of its own."""
        kept: list[Role] = [role for role in self.policy.roles.names if role in self.method.trains]
        if self.policy.uses_adapters and self.policy.roles.weights("reference"):
            kept.append("reference")
        return tuple(kept)

    def _make_folder(self) -> Path:
        made: list[Any] = [None]
        if self.rank == 0:
            try:
                made[0] = runfolder.create(self.trainer.output_dir, self.trainer.if_exists)
                if not (made[0] / "config.yaml").exists():
                    runfolder.describe(made[0], self._description())
            except (UserError, OSError) as error:
                made[0] = error
        if self.world > 1:
            broadcast_object_list(made)
        if isinstance(made[0], OSError):
            raise UserError(f"{self.trainer.output_dir} cannot be made ({made[0].strerror}); choose output_root.")
        if isinstance(made[0], UserError):
            raise made[0]
        return made[0]

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        plan, (trainable, total) = self.plan, self.policy.parameter_count()
        print_ = self.console.print
        for note in (*self.policy.notes, *(self.evaluator.notes if self.evaluator is not None else ())):
            print_(note)
        for data in (self.data, self.heldout):
            if data is not None and (data.report.rejected or data.report.noted):
                print_(data.report.summary(), soft_wrap=True, markup=False, highlight=False)
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
