"""Settings of a run, as frozen dataclasses that check themselves when they are built.

They are the only source: ``make configs`` writes the YAML files of ``configs/`` from their fields, defaults and field
docstrings, which become comments there. Nothing here imports PyTorch, so that a wrong value is answered at once. A
message begins with the field's name: ``learning_rate must be …``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan

from align.errors import UserError, did_you_mean
from align.settings.adapter import Adapter
from align.settings.run_place import check_output_root, check_run_name
from align.settings.sampling import SamplingConfig, require_drawable
from align.settings.sharding import ShardingName, require_shardable, require_state_in_parts
from align.settings.type_checks import Count, NotNegative, Positive, Seed, Settings, Share

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "RunConfig",
    "TrackerName",
    "TrainerConfig",
    "WandbConfig",
    "check_trackers",
    "is_missing",
]

TrackerName = Literal["wandb", "tensorboard", "trackio", "mlflow"]

_COLUMNS = (
    *("prompt", "system", "chosen", "rejected", "completion", "label", "messages"),
    *("response_1", "response_2", "better", "response_0", "better_response_id", "responses", "scores", "ranks"),
    *("answer", "source", "tools", "chosen_score", "rejected_score", "margin", "weight", "prompt_id"),
    *("prompt_ids", "chosen_ids", "rejected_ids", "input_ids", "labels"),
)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Settings):
    """Optimisation; null takes the default of the method."""

    learning_rate: NotNegative | None = None
    """Peak learning rate."""
    epochs: Positive | None = None
    """Passes over the training data."""
    steps: Count | None = None
    """Optimiser steps; instead of epochs."""
    batch_size: Count | None = None
    """Prompts per optimiser step, over all processes."""
    tokens_per_microbatch: Count = 8192
    """Padded tokens in one forward pass; lower it when memory runs out."""
    optimizer: Literal["adamw", "adamw_8bit", "rmsprop", "sgd"] = "adamw"
    """adamw, adamw_8bit (needs bitsandbytes), rmsprop, sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averages of gradient and squared gradient."""
    eps: Positive = 1e-8
    """AdamW's and RMSprop's denominator term."""
    weight_decay: NotNegative = 0.0
    """Decoupled; matrices only."""
    schedule: Literal["cosine", "linear", "constant"] | None = None
    """Learning rate after the warm-up: cosine, linear, constant."""
    warmup: NotNegative | None = None
    """Below 1: share of all steps; from 1: number of steps."""
    final_learning_rate: Share = 0.0
    """Share of the peak that cosine and linear end at."""
    residual_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Of what attention and MLP add, at the top layer; it rises from 0 at the bottom layer."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation: float32, bfloat16; trained weights stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations: less memory, a third more time."""
    sharding: ShardingName = "none"
    """Of the model's layers: full (over all processes), node (over those of a machine), none."""
    max_length: Annotated[int, Ge(2)] = 1024
    """Tokens of prompt and response together."""
    eval_steps: Count | None = None
    """Evaluate every n steps; null: before and after training only."""
    save_steps: Count | None = 50
    """Checkpoint every n steps; null: at the end only."""
    keep_checkpoints: Count = 2
    """Older checkpoints are deleted."""
    log_steps: Count = 1
    """Write metrics every n steps."""
    seed: Seed = 0
    """Order of the data, dropout, sampling."""
    samples: Annotated[int, Ge(0)] = 12
    """Responses shown before and after training."""

    def check(self) -> None:
        """Betas lie in [0, 1), and the length of training is given once."""
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas must be two numbers from 0 to below 1, not {list(self.betas)}.")
        unused = {"sgd": ("betas", "eps"), "rmsprop": ("betas",)}.get(self.optimizer, ())
        for name in unused:
            if getattr(self, name) != getattr(TrainerConfig, name):
                raise UserError(f"{name} has no effect on optimizer={self.optimizer}; leave {name} out, or use adamw.")
        if self.epochs is not None and self.steps is not None:
            raise UserError("steps and epochs both say how long to train: give one of them.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The base model, and the adapter to begin from."""

    name: str
    """A folder, a Hugging Face name, or world/base for the embedded model."""
    start: str | None = None
    """Folder of a PEFT adapter to begin from, or world/sft; null: none."""
    reference: str | None = None
    """The reference: an adapter on name, name itself, or a whole model; null: the model to begin from."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face model."""
    trust_remote_code: bool = False
    """Run code that comes with the model; revision pins it: a commit, of a folder the hash of its code."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen weights: float32, bfloat16; trained weights are float32."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = None
    """sdpa, eager, flash_attention_2, flex_attention; null: sdpa where the model has it."""
    chat_template: str | None = None
    """Bundled name (hh, chatml) or a Jinja file; null: the tokenizer's own."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Values for variables of the template, such as {enable_thinking: false}."""
    layout: Literal["auto", "tree", "flat"] = "auto"
    """tree computes a prompt once for all its responses; flat repeats it; auto takes tree where it is exact."""
    quantization: Literal["4bit"] | None = None
    """4bit is QLoRA and needs bitsandbytes."""

    def check(self) -> None:
        """A model that brings code must be pinned to a commit."""
        if not self.name.strip():
            raise UserError("name is empty: give a folder, a Hugging Face name, or world/base.")
        _check_exists(self, "name")
        _check_exists(self, "start")
        _check_exists(self, "reference")
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise UserError(
                "trust_remote_code=true runs code from the model's repository, so revision must be "
                "the 40-digit commit that you have read."
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Training pairs and the pairs held out."""

    train: str | tuple[str, ...]
    """A file (JSON, CSV, Parquet, Arrow), pattern, datasets folder, Hugging Face name or world; or a list."""
    heldout: str | None = None
    """Likewise; null: heldout_size prompts are split off from train."""
    format: str = "auto"
    """Name of a format; auto recognises the columns."""
    columns: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(_COLUMNS))
    """Columns that have another name, or a path into one in quotes: '{prompt: "conversations[0].value"}'."""
    subset: str | None = None
    """Subset (configuration) of a Hugging Face dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face dataset."""
    split: str = "train"
    """Split of a datasets folder or Hugging Face dataset."""
    heldout_format: str | None = None
    """Of heldout; null: as train, and so in the next three lines."""
    heldout_columns: Mapping[str, str | None] | None = None
    """Of heldout: '{prompt: problem}'; {} where train has a mapping and heldout needs none."""
    heldout_subset: str | None = None
    """Of heldout."""
    heldout_revision: str | None = None
    """Of heldout."""
    heldout_split: str = "test"
    """Of heldout."""
    heldout_size: NotNegative = 0.05
    """Below 1: share of the prompts; from 1: number of prompts; 0: none."""
    max_rejected: Share = 0.01
    """Share of bad rows at which the run stops instead of dropping them."""
    too_long: Literal["drop", "truncate_prompt", "error"] = "drop"
    """Prompts without room for a response: drop them, truncate_prompt (their first turns go), error."""
    pairs: Literal["all", "adjacent", "best_worst", "best_random"] = "all"
    """Pairs that pairwise methods learn from a ranking: all, adjacent, best_worst, best_random."""
    train_on: Literal["last", "all"] = "last"
    """Turns of the assistant that a demonstration trains: last, all."""
    max_prompts: Count | None = None
    """Train on this many prompts at most, drawn by the seed; null: all."""
    select: Count | None = None
    """Train on this many rows, good ones from different clusters of prompts; null: all."""
    select_by: str = "length"
    """Their quality: score (of the data), length (of the answer), or a scorer's name or YAML file."""
    select_per_source: Count | None = None
    """Largest number of them from one source (column source)."""
    rates: Literal["proportional", "temperature", "equal"] | None = None
    """Mix the sources of train: proportional (to their rows), temperature, equal; null: all rows as they are."""
    cap: Count | None = None
    """Rows of a source from which on it counts no more in the rates; null: no limit."""
    temperature: Annotated[float, Ge(1), AllowInfNan(False)] = 1.0
    """Of temperature rates, share^(1/temperature); the larger, the more equal."""
    expected_rows: Count | None = None
    """Stop unless train has exactly this many rows."""
    mix: str | None = None
    """Demonstrations that on-line training mixes in (PPO-ptx), in a known format; null: the preferred of train."""

    def check(self) -> None:
        """Files exist; a number of prompts is a whole one."""
        sources = self.sources
        if not sources or not all(source.strip() for source in sources):
            raise UserError("train is empty: give a file, a datasets folder, a Hugging Face name, or world.")
        for name in ("train", "heldout", "mix"):
            _check_exists(self, name)
        named = {"columns": self.columns, "heldout_columns": self.heldout_columns or {}}
        for group, name in [(group, name) for group, names in named.items() for name in names]:
            if name not in _COLUMNS:
                raise UserError(f"{group}.{name} is none of {', '.join(_COLUMNS)}.{did_you_mean(name, _COLUMNS)}")
        if self.heldout_size >= 1 and self.heldout_size != int(self.heldout_size):
            raise UserError(
                f"heldout_size={self.heldout_size} is neither a share below 1 nor a whole number of prompts."
            )
        self._check_choice_of_rows()

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the training data."""
        return (self.train,) if isinstance(self.train, str) else self.train

    def _check_choice_of_rows(self) -> None:
        """Settings that shape a selection or a mixture need one, and only one of them chooses the rows."""
        for needed, names in (("select", ("select_by", "select_per_source")), ("rates", ("cap", "temperature"))):
            for name in names:
                if getattr(self, needed) is None and getattr(self, name) != getattr(DataConfig, name):
                    raise UserError(f"{name}={getattr(self, name)} has no effect without data.{needed}; leave it out.")
        if self.rates is None:
            return
        if self.select is not None:
            raise UserError("select and data.rates both choose the rows to train on; give one of them.")
        if len(self.sources) < 2 or len(set(self.sources)) < len(self.sources):
            raise UserError("rates mixes several sources, each once: name them as data.train=[a.jsonl,b.jsonl].")
        if self.rates == "equal" and self.cap is not None:
            raise UserError(f"cap={self.cap} has no effect on data.rates=equal; leave it out.")
        if self.rates != "temperature" and self.temperature != 1:
            raise UserError(f"temperature={self.temperature:g} has an effect on data.rates=temperature alone.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Settings):
    """Generations on held-out prompts, scored before and after training."""

    scorer: str = "auto"
    """auto: true reward on the embedded world, and reward where given; none; or a scorer's name or YAML file."""
    prompts: Annotated[int, Ge(0)] = 64
    """Held-out prompts to generate on; 0: no generation."""
    max_new_tokens: Count = 128
    """Longest response."""
    temperature: NotNegative = 0.7
    """0 is greedy."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Nucleus sampling."""

    def check(self) -> None:
        """Greedy answers leave nothing to choose from."""
        if self.temperature == 0 and self.top_p < 1:
            raise UserError(f"top_p={self.top_p} has no effect on greedy answers (temperature=0); leave it at 1.")


@dataclass(frozen=True, kw_only=True)
class WandbConfig(Settings):
    """Logging to Weights & Biases, with trackers=[wandb]."""

    mode: Literal["offline", "online"] = "offline"
    """offline (files for `wandb sync`), online (needs `wandb login`)."""
    project: str = "align"
    """Project to log to, of trackio and MLflow too."""
    entity: str | None = None
    """Team or user; null: your default."""
    group: str | None = None
    """Runs shown together, by trackio too; null: those of a recipe or comparison."""
    tags: tuple[str, ...] = ()
    """Labels."""


def check_trackers(trackers: Sequence[TrackerName], wandb: WandbConfig) -> None:
    """Raise `UserError` for a tracker named twice, and for a setting that no tracker reads."""
    if len(set(trackers)) < len(trackers):
        raise UserError(f"trackers=[{','.join(trackers)}] names one twice.")
    for name, readers in _READERS.items():
        if getattr(wandb, name) != getattr(WandbConfig, name) and not readers & set(trackers):
            raise UserError(f"wandb.{name} has no effect without trackers=[wandb]; add it, or leave wandb.{name} out.")


_READERS = {
    "mode": {"wandb"},
    "entity": {"wandb"},
    "tags": {"wandb"},
    "project": {"wandb", "trackio", "mlflow"},
    "group": {"wandb", "trackio"},
}
"""The trackers that each setting of W&B is for."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """One run: every group of ``configs/`` under its name."""

    method: str
    """Name in the registry."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the method."""
    model: ModelConfig
    adapter: Adapter | None = field(default_factory=Adapter)
    """null: every parameter is trained."""
    data: DataConfig
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    reward: Mapping[str, Any] | None = None
    """A scorer by name with its settings: see `align.scoring.from_config`."""
    trackers: tuple[TrackerName, ...] = ()
    """Beside the run's folder, which holds every metric: [wandb, tensorboard, trackio, mlflow]."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    run_name: str
    """Folder below output_root; null: method-model-data-seed."""
    output_root: str = "runs"
    """Folder of all runs."""
    if_exists: Literal["new", "resume", "overwrite"] = "new"
    """new adds -2, -3 … to the name; resume continues the run; overwrite deletes it first."""
    resume_world_size: Literal["same", "any"] = "same"
    """Processes of a resumed run; any: another number too, which rounds otherwise."""
    dry_run: bool = False
    """Say what would be done, write nothing."""
    stage: Literal["sample", "train"] | None = None
    """Of a method with candidates: sample only draws them, train takes data as such a file; null: both."""
    seed: Seed = 0
    """Of everything random."""

    def check(self) -> None:
        """The run folder stays where it was asked for, and settings that need others have them."""
        check_trackers(self.trackers, self.wandb)
        require_shardable(self.trainer.sharding, quantized=self.model.quantization is not None)
        if self.adapter is None and self.trainer.sharding != "none":
            require_state_in_parts(self.trainer.optimizer)
        require_drawable(self.sampling, self.adapter, self.trainer.sharding)
        check_run_name(self.run_name)
        check_output_root(self.output_root, self.run_name)

    def plain(self) -> dict[str, Any]:
        """Return the run as nested plain values, in the shape of ``configs/config.yaml``."""
        values = dataclasses.asdict(self)
        values["method"] = {"name": self.method, **values.pop("settings")}
        return values


def _check_exists(settings: object, name: str) -> None:
    """Look for a value that can only be a path; other names are looked up by whoever loads them."""
    value: str | tuple[str, ...] | None = getattr(settings, name)
    paths = [one for one in ((value,) if isinstance(value, str) else value or ()) if _is_path(one)]
    missing = [one for one in paths if not has_magic(one) and not Path(one).expanduser().exists()]
    if missing:
        raise UserError(*(f"{name}={one!r}: there is no such file or folder.{_near_file(one)}" for one in missing))


def is_missing(name: str) -> bool:
    """Return whether a name that was typed can only be that of a file or folder, and there is none."""
    parts = Path(name).parts
    inside = len(parts) == 2 and parts[0] != "world" and Path(parts[0]).is_dir()  # the hub has owner/name
    return (_is_path(name) or len(parts) > 2 or inside) and not Path(name).expanduser().exists()


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(_DATA_SUFFIXES)


def _near_file(name: str) -> str:
    path = Path(name).expanduser()
    beside = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(str(path), beside)


_DATA_SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow"),
    *(".gz", ".zst", ".zstd", ".xz", ".bz2"),
)
