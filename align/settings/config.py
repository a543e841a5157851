"""What a run is made of, as frozen dataclasses that check themselves when they are built.

The YAML files in ``configs/`` hold the same fields with the same defaults. Nothing here imports PyTorch, so
that a wrong value is answered at once. A message begins with the field's name: ``learning_rate must be …``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from align.errors import UserError
from align.settings.adapter import Adapter
from align.settings.checking import Settings, require_at_least, require_positive

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "RunConfig",
    "TrainerConfig",
    "WandbConfig",
]


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Settings):
    """How to optimise; ``None`` takes the default of the method."""

    learning_rate: float | None = None  # peak learning rate
    epochs: float | None = None  # passes over the training data
    steps: int | None = None  # optimiser steps; instead of epochs
    batch_size: int | None = None  # prompts per optimiser step, over all processes
    tokens_per_microbatch: int = 8192  # padded tokens in one forward pass; lower it when memory runs out
    optimizer: Literal["adamw", "adamw_8bit", "rmsprop", "sgd"] = "adamw"  # adamw_8bit needs bitsandbytes
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's averages of gradient and squared gradient
    eps: float = 1e-8  # AdamW's and RMSprop's denominator term
    weight_decay: float = 0.0  # decoupled; matrices only
    schedule: Literal["cosine", "linear", "constant"] | None = None  # learning rate after the warm-up
    warmup: float | None = None  # below 1: share of all steps; from 1: number of steps
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    precision: Literal["float32", "bfloat16"] = "float32"  # of the computation; trained weights stay float32
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third more time
    max_length: int = 1024  # tokens of prompt and response together
    eval_steps: int | None = None  # evaluate every n steps; None: before and after training only
    save_steps: int | None = 50  # checkpoint every n steps; None: at the end only
    keep_checkpoints: int = 2  # older checkpoints are deleted
    log_steps: int = 1  # write metrics every n steps
    seed: int = 0  # order of the data, dropout, sampling
    samples: int = 12  # responses shown before and after training

    def check(self) -> None:
        """Ranges, and that the length of training is given once."""
        for name in ("epochs", "eps", "max_grad_norm"):
            require_positive(self, name)
        for name in ("steps", "batch_size", "tokens_per_microbatch", "keep_checkpoints", "log_steps"):
            require_at_least(self, name, 1)
        for name in ("eval_steps", "save_steps"):
            require_at_least(self, name, 1)
        for name in ("learning_rate", "weight_decay", "warmup", "seed", "samples"):
            require_at_least(self, name, 0)
        require_at_least(self, "max_length", 2)
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise UserError(f"betas must be two numbers from 0 to below 1, not {list(self.betas)}.")
        if self.epochs is not None and self.steps is not None:
            raise UserError("steps and epochs both say how long to train: give one of them.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The base model, and the adapter to begin from."""

    name: str  # a folder, a Hugging Face name, or world/base for the embedded model
    start: str | None = None  # folder of a PEFT adapter to begin from, or world/sft; null: none
    revision: str | None = None  # branch, tag or commit of a Hugging Face model
    trust_remote_code: bool = False  # run code that comes with the model; needs a commit in revision
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the frozen weights; adapters are float32
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = None  # None: by model
    chat_template: str | None = None  # bundled name (hh, chatml) or a Jinja file; null: the tokenizer's own
    layout: Literal["auto", "tree", "flat"] = "auto"  # tree computes a prompt once for all its responses
    quantization: Literal["4bit"] | None = None  # 4bit is QLoRA and needs bitsandbytes

    def check(self) -> None:
        """A model that brings code must be pinned to a commit."""
        if not self.name.strip():
            raise UserError("name is empty: give a folder, a Hugging Face name, or world/base.")
        _check_exists(self, "name")
        _check_exists(self, "start")
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise UserError(
                "trust_remote_code=true runs code from the model's repository, so revision must be "
                "the 40-digit commit that you have read."
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Training pairs and the pairs held out."""

    train: str  # .jsonl, .jsonl.gz, .json or .parquet file, datasets folder, Hugging Face name, or world
    heldout: str | None = None  # likewise; null: heldout_size prompts are split off from train
    format: str = "auto"  # auto recognises the columns; or the name of one format
    split: str = "train"  # split of a datasets folder or Hugging Face dataset
    heldout_split: str = "test"  # split of heldout, likewise
    heldout_size: float = 0.05  # below 1: share of the prompts; from 1: number of prompts; 0: none
    max_rejected: float = 0.01  # share of bad rows at which the run stops instead of dropping them
    expected_rows: int | None = None  # stop unless train has exactly this many rows
    mix: str | None = None  # demonstrations that on-line training mixes in (PPO-ptx); None: the preferred of train

    def check(self) -> None:
        """Ranges."""
        if not self.train.strip():
            raise UserError("train is empty: give a file, a datasets folder, a Hugging Face name, or world.")
        _check_exists(self, "train")
        _check_exists(self, "heldout")
        _check_exists(self, "mix")
        require_at_least(self, "heldout_size", 0)
        if self.heldout_size >= 1 and self.heldout_size != int(self.heldout_size):
            raise UserError(
                f"heldout_size={self.heldout_size} is neither a share below 1 nor a whole number of prompts."
            )
        require_at_least(self, "max_rejected", 0)
        if self.max_rejected > 1:
            raise UserError(f"max_rejected is a share of the rows, from 0 to 1, not {self.max_rejected}.")
        require_at_least(self, "expected_rows", 1)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Settings):
    """Generations on held-out prompts, scored before and after training."""

    scorer: str = "auto"  # auto: true reward on the embedded world, and reward where given; none; or a scorer's name
    prompts: int = 64  # held-out prompts to generate on; 0: no generation
    max_new_tokens: int = 128  # longest response
    temperature: float = 0.7  # 0 is greedy
    top_p: float = 1.0  # nucleus sampling

    def check(self) -> None:
        """Ranges."""
        require_at_least(self, "prompts", 0)
        require_at_least(self, "max_new_tokens", 1)
        require_at_least(self, "temperature", 0)
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}.")


@dataclass(frozen=True, kw_only=True)
class WandbConfig(Settings):
    """Weights & Biases; the run folder holds every metric without it."""

    mode: Literal["disabled", "offline", "online"] = "disabled"  # offline writes files for `wandb sync`
    project: str = "align"  # project to log to
    entity: str | None = None  # team or user; null: your default
    group: str | None = None  # runs shown together
    tags: tuple[str, ...] = ()  # labels


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """One run: every group of ``configs/`` under its name."""

    method: str  # name in the registry
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  # fields of the method
    model: ModelConfig
    adapter: Adapter | None = field(default_factory=Adapter)  # None: every parameter is trained
    data: DataConfig
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    reward: Mapping[str, Any] | None = None  # a scorer by name with its settings: see align.scoring.from_config
    wandb: WandbConfig = field(default_factory=WandbConfig)
    run_name: str  # folder below output_root
    output_root: str = "runs"  # folder of all runs
    if_exists: Literal["new", "resume", "overwrite"] = "new"  # new adds -2, -3 … to the name
    dry_run: bool = False  # say what would happen, write nothing
    stage: Literal["sample", "train"] | None = None  # of a method with candidates: only draw them, or only train
    seed: int = 0  # of everything random

    def check(self) -> None:
        """The seed, and a run folder that stays where it was asked for."""
        require_at_least(self, "seed", 0)
        _check_run_name(self.run_name)
        _check_output_root(self.output_root, self.run_name)

    def plain(self) -> dict[str, Any]:
        """Return the run as nested plain values, in the shape of ``configs/config.yaml``."""
        values = dataclasses.asdict(self)
        values["method"] = {"name": self.method, **values.pop("settings")}
        return values


def _check_exists(settings: object, name: str) -> None:
    """What can only be a path must be there; other names are looked up by whoever loads them."""
    value: str | None = getattr(settings, name)
    path = value is not None and (value.startswith((".", "/", "~")) or value.endswith(_DATA_SUFFIXES))
    if value is not None and path and not Path(value).expanduser().exists():
        raise UserError(f"{name}={value!r}: there is no such file or folder.")


_DATA_SUFFIXES = (".jsonl", ".json", ".gz", ".parquet")


def _check_run_name(name: str) -> None:
    if not name.isprintable():
        raise UserError(f"run_name has control characters, {name!a}: use printable ones only.")
    if not name.strip() or name in (".", "..") or re.search(r"[/\\]", name):
        raise UserError(f"run_name={name!r} is not the name of one folder: use output_root for the place.")
    if len(name.encode()) > 200:
        raise UserError(f"run_name is longer than 200 bytes: {name[:40]!r}….")


def _check_output_root(root: str, run_name: str) -> None:
    if not root.isprintable():
        raise UserError(f"output_root has control characters, {root!a}: use printable ones only.")
    path = Path(root)
    if not root or ".." in path.parts:
        raise UserError(f"output_root={root!r} must be a folder named without '..'.")
    whole = path / run_name
    for part in (whole, *whole.parents):
        if part.is_symlink():
            raise UserError(f"{part} is a symbolic link: set output_root to {part.resolve()} itself or elsewhere.")
