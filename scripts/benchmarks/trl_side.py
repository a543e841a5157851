"""TRL's trainers in the benchmarks: the rows that each takes, and its settings as it comes and at its best."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ours import LEARNING_RATE, MAX_GRAD_NORM, TokenCount, set_weights
from benchmarks.turns import Turn

if TYPE_CHECKING:
    from align.data import Example

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A trainer of TRL."""

    trainer: str
    """``DPO`` of DPOTrainer and DPOConfig."""
    rows: Callable[[Sequence[Example]], Rows]
    """The rows of a step of these examples, as token ids."""
    per_example: int = 1
    """Rows of an example."""
    best: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings that its documentation offers for speed and a CPU can do, beside `BEST`."""
    packed: bool = False
    """At its best all examples of a step are one row."""
    grouped: bool = True
    """At its best the examples of a step are of similar length (``train_sampling_strategy="group_by_length"``)."""


BEST = {"gradient_checkpointing": False}


def shown_settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of speed that are not the trainer's defaults."""
    sampling = {"train_sampling_strategy": "group_by_length"} if PEERS[name].grouped else {}
    return {**BEST, **PEERS[name].best, **sampling} if options.peer == "best" else {}


def _demonstrations(examples: Sequence[Example]) -> Rows:
    return [
        {
            "input_ids": [*example.prompt_ids, *example.responses[0]],
            "labels": [*[-100] * len(example.prompt_ids), *example.responses[0]],
        }
        for example in examples
    ]


def packed(rows: Rows) -> Rows:
    """Return one row of all, as TRL's packing and its padding-free collator make it."""
    joined = {name: [value for row in rows for value in row[name]] for name in ("input_ids", "labels")}
    return [{**joined, "seq_lengths": [len(row["input_ids"]) for row in rows]}]


def _pairs(examples: Sequence[Example]) -> Rows:
    return [
        {
            "prompt_ids": example.prompt_ids,
            "chosen_ids": example.responses[0],
            "rejected_ids": example.responses[1],
        }
        for example in examples
    ]


def _whole_pairs(examples: Sequence[Example]) -> Rows:
    return [
        {
            f"{name}_ids": [*example.prompt_ids, *ids]
            for name, ids in zip(("chosen", "rejected"), example.responses, strict=True)
        }
        for example in examples
    ]


def _judgements(examples: Sequence[Example]) -> Rows:
    """Return a row for each answer; the answers from which the KL is estimated are those that this project takes."""
    from align.model.batch import Batch
    from methods.unpaired.mismatched import with_other_answers

    (others,) = with_other_answers([Batch.from_examples(examples)], lambda make: [make()])
    return [
        {
            "prompt_ids": example.prompt_ids,
            "completion_ids": ids,
            "KL_completion_ids": list(other),
            "label": good,
        }
        for example, answers in zip(examples, others.response_ids, strict=True)
        for ids, other, good in zip(example.responses, answers, example.good, strict=True)
    ]


PEERS = {
    "sft": Peer(trainer="SFT", rows=_demonstrations, best={"packing": True}, packed=True, grouped=False),
    "dpo": Peer(trainer="DPO", rows=_pairs, best={"precompute_ref_log_probs": True}),
    "kto": Peer(
        trainer="KTO", rows=_judgements, per_example=2, best={"precompute_ref_log_probs": True}, grouped=False
    ),  # KTOTrainer refuses another order than the data's
    "reward": Peer(trainer="Reward", rows=_whole_pairs),
}


def train(turn: Turn, options: argparse.Namespace, folder: Path, *, name: str, steps: list[list[Example]]) -> None:
    """Train with TRL's own loop; its time is the step alone, without the collation of the batch."""
    from transformers import TrainerCallback

    peer = PEERS[name]
    trainer = _trainer(peer, options, folder, steps)
    set_weights(_trained(trainer.model), options.seed)
    count = TokenCount(trainer.model.get_base_model())

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turn.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn.end(
                loss=float(trainer.losses[-1]), prepared_seconds=trainer.prepared_seconds / len(steps), **count.taken()
            )

    trainer.add_callback(Turns())
    trainer.train()


def _trainer(peer: Peer, options: argparse.Namespace, folder: Path, steps: list[list[Example]]) -> Any:
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback

    from align.settings.adapter import Adapter

    best = options.peer == "best"
    as_one = peer.packed and best
    rows = [row for step in steps for row in (packed(peer.rows(step)) if as_one else peer.rows(step))]
    adapter = Adapter(r=options.rank).to_peft()
    if peer.trainer == "Reward":
        adapter = replace(adapter, task_type="SEQ_CLS")  # which trains the head, too
    trainer = on_tokens(getattr(trl, f"{peer.trainer}Trainer"))(
        model=str(folder),
        args=getattr(trl, f"{peer.trainer}Config")(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=1 if as_one else options.pairs * peer.per_example,
            max_steps=len(steps),
            max_length=options.max_length,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=MAX_GRAD_NORM,
            model_init_kwargs={"dtype": options.dtype},
            bf16=options.dtype == "bfloat16",
            use_cpu=True,
            train_sampling_strategy="sequential",  # the steps are grouped already, for both sides
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=options.seed,
            **({**BEST, **peer.best} if best else {}),
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=adapter,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def on_tokens(trainer: type[Any]) -> type[Any]:
    """Return the trainer for rows that are token ids already; it keeps the loss of every forward pass."""

    class OnTokens(trainer):
        prepared_seconds = 0.0
        """Time of the reference's log-probabilities, where they are computed before the training."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.losses: list[Any] = []
            super().__init__(*args, **kwargs)

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any) -> Any:
            began = time.perf_counter()
            found = super()._precompute_ref_logps(*args)
            self.prepared_seconds = time.perf_counter() - began
            return found

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            self.losses.append(loss.detach())
            return loss

    return OnTokens


def _trained(model: Any) -> Mapping[str, Any]:
    """Return the trained parameters under this project's names."""
    names = {re.sub(r"\.default(?=\.)", "", name): p for name, p in model.named_parameters() if p.requires_grad}
    return {"score.weight" if ".score." in name else name: p for name, p in names.items()}
