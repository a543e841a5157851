"""The memory that a run will need, from its data and the model's architecture, before any weights are read.

A step is counted on tensors without content (:mod:`align.training.step_memory`).
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch

from align.errors import first_line
from align.model.architecture import decoder_layers
from align.model.batch import Batch, Layout, batches_by_length
from align.model.packing import PACKED
from align.model.sharding import kept_share
from align.model.skeleton import Skeleton
from align.model.tree_layout import Rows, attention_kinds, lay_out
from align.system.processes import Processes
from align.training.cluster import Cluster
from align.training.feed import Batches
from align.training.step_memory import step_bytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from align.data import TokenizedPreferences
    from align.method.base import Method
    from align.settings.config import RunConfig
    from align.training.plan import Plan

__all__ = [
    "OPTIMIZER_BYTES",
    "WEIGHT_BYTES",
    "Memory",
    "Workload",
    "estimate",
    "kept",
    "own_share",
    "readable",
    "weight_bytes",
]

WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "4bit": 0.6}  # 4 bits, their scales, and what stays unquantised
OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4, "sgd": 0}  # state per trained parameter
_TURNS = 64  # batches of a run that are looked at for the largest
_DRAWN_TOKENS = 32_768  # of the sampler's batches
_HEAP = 1.4  # of the bytes of tensors, on a CPU: glibc's heap keeps holes between them (1.37 to 1.6 measured)
_CHOICE_BYTES = 24  # of each entry of the vocabulary while a token is chosen, in float32 and float64


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes by purpose."""

    kept: Mapping[str, float]
    """From the beginning of training to its end."""
    passing: Mapping[str, float]
    """Of phases that follow each other."""
    unknown: str | None = None
    """Why a step could not be counted."""

    @property
    def peak(self) -> float:
        """The most that is held at once."""
        return sum(self.kept.values()) + max(self.passing.values(), default=0.0)

    def lines(self) -> list[str]:
        """The estimate for a reader."""
        lines = [f"Memory of each process, about {readable(self.peak)}:"]
        lines += [f"  {readable(amount):>8}  {name}" for name, amount in self.kept.items()]
        lines += [f"  {readable(amount):>8}  {name}" for name, amount in self.passing.items()]
        if len(self.passing) > 1:
            lines.append("  the last ones follow each other, so the largest of them counts")
        if self.unknown is not None:
            lines.append(f"  not counted: a step, which cannot be tried without weights here ({self.unknown})")
        return lines


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The method, model and data of a run, whatever the settings of its trainer are."""

    method: Method
    """Says which roles there are and which are trained."""
    architecture: PretrainedConfig
    whole: Skeleton
    """The model without weights."""
    examples: TokenizedPreferences
    """That it learns from, or the prompts that it answers."""
    plan: Plan | None
    """None: nothing is trained, only drawn."""
    tokenizer: PreTrainedTokenizerBase
    """Answers that are not drawn yet are taken to be as long as nine in ten of the data's are in it."""
    steps: dict[tuple[object, ...], tuple[int, float]] = field(default_factory=dict[tuple[object, ...], Any])
    """Tokens and bytes of steps that were counted already."""


def estimate(config: RunConfig, work: Workload, cluster: Cluster | None = None) -> Memory:
    """Estimate the memory of one process: of the device where there is an accelerator, else of the whole process.

    Args:
        config: Of the run.
        work: Its method, model and data.
        cluster: That it will run on; None: that of this process.
    """
    cluster = cluster or Cluster.own()
    passing: dict[str, float] = {}
    unknown, usual = None, _usual_length(work.examples, work.tokenizer)
    if work.plan is not None:
        try:
            tokens, bytes_of_step = _counted_step(config, work, work.plan, usual)
            passing[f"a step on {tokens:,} tokens"] = bytes_of_step * (1.0 if cluster.accelerator else _HEAP)
        except Exception as error:  # of an architecture whose shapes depend on numbers, as those of experts do
            unknown = f"{type(error).__name__}: {first_line(error)}"[:200]
    for name, prompts, answers, longest in _drawings(config, work, usual):
        if prompts:
            gathered = weight_bytes(config, work) * (1 - own_share(config, work, cluster))
            passing[name] = gathered + _drawing_bytes(config, work, prompts, answers, longest)
    return Memory(kept=kept(config, work, cluster), passing=passing, unknown=unknown)


def kept(config: RunConfig, work: Workload, cluster: Cluster) -> dict[str, float]:
    """Return the bytes that are held from the beginning of training to its end, by purpose."""
    method, size, adapters = work.method, work.whole.size, config.adapter is not None
    other = config.model.reference if config.model.reference is not None else config.model.start
    roles = {"policy", *method.roles} | ({"reference"} if other is not None else set())
    copies = len(roles - {"reference"}) + (other not in (None, config.model.name))
    trained = size.trainable * (0 if work.plan is None else len(method.trains))
    share = own_share(config, work, cluster)
    trained_share = 1.0 if adapters else share
    found = {
        "model": weight_bytes(config, work) * share * (1 if adapters else len(roles)),
        "adapters": 4.0 * size.trainable * copies if adapters else 0.0,
        "gradients": 4.0 * trained * trained_share,
        "optimizer": OPTIMIZER_BYTES[config.trainer.optimizer] * trained * trained_share,
        "layers gathered for a pass": _gathered_bytes(config, work) if share < 1 else 0.0,
        "Python, its libraries and the data": 0.0 if cluster.accelerator else _own_peak(),
    }
    return {name: amount for name, amount in found.items() if amount}


def weight_bytes(config: RunConfig, work: Workload) -> float:
    """Return the bytes of one model, adapters apart."""
    dtype = config.model.quantization or (config.model.dtype if config.adapter is not None else "float32")
    return work.whole.size.total * WEIGHT_BYTES[dtype]


def own_share(config: RunConfig, work: Workload, cluster: Cluster) -> float:
    """Return the share of a model that each device keeps."""
    kind = config.trainer.sharding
    return kept_share(work.whole.network, kind, cluster.sharing(kind))


def readable(amount: float) -> str:
    """Return a number of bytes with its unit."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def _own_peak() -> float:
    """Bytes that this process has held at most, everything imported and the data read."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


# The largest micro-batch


def _layout(config: RunConfig, architecture: PretrainedConfig) -> tuple[Layout, bool]:
    """The layout that the probe will most likely find exact, and whether its rows will be packed."""
    try:
        attention_kinds(architecture)
    except ValueError:
        return "flat", False
    packed = str(architecture._attn_implementation) == PACKED  # pyright: ignore[reportPrivateUsage]
    masked = config.model.attention in (None, "sdpa", "eager")
    return "tree" if masked and config.model.layout != "flat" else "flat", packed


def _usual_length(examples: TokenizedPreferences, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that nine in ten answers of the data have at most; a large number where it has none."""
    rows = examples.preferences
    some = (rows[i * len(rows) // _TURNS] for i in range(_TURNS if len(rows) else 0))
    answers = [str(side[0]["content"]) for row in some if (side := row["chosen"] or row["rejected"])]
    lengths = sorted(len(ids) for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]) if answers else []  # pyright: ignore[reportArgumentType]
    return lengths[9 * len(lengths) // 10] + 1 if lengths else sys.maxsize


def _batches(config: RunConfig, work: Workload, plan: Plan, usual: int) -> list[Batch]:
    """The batches of the first steps."""
    processes = Processes()
    data = Batches(work.examples, processes)
    turns = range(min(_TURNS, plan.turns_per_epoch, plan.steps))
    batches = [data.share(data.turn(turn, plan.batch_size, plan.turns_per_epoch, config.seed)) for turn in turns]
    rollout = work.method.rollout
    if rollout is None:
        return batches
    answer = [0] * min(usual, rollout.sampling.max_new_tokens)
    responses = ((answer,) * rollout.responses,)
    size = max(1, plan.batch_size // rollout.minibatches)
    return [
        Batch(batch.prompt_ids[:size], responses * len(batch.prompt_ids[:size]), batch.rows[:size]) for batch in batches
    ]


def _largest(batches: Sequence[Batch], tokens: int, layout: Layout, packed: bool) -> tuple[Batch, Rows]:
    parts = [part for batch in batches if batch.P for part in batch.micro_batches(tokens, layout, packed=packed)]
    device = torch.device("cpu")
    laid_out = [(part, lay_out(part, layout, pad_id=0, device=device, packed=packed)) for part in parts]
    return max(laid_out, key=lambda part: part[1].input_ids_RL.numel())


# A step on tensors without content


def _counted_step(config: RunConfig, work: Workload, plan: Plan, usual: int) -> tuple[int, float]:
    """Tokens of the largest micro-batch, and bytes that live at the peak of a step on it; counted once."""
    trainer = config.trainer
    key = (
        config.model.dtype,
        trainer.precision,
        trainer.tokens_per_microbatch,
        trainer.gradient_checkpointing,
    )
    if key not in work.steps:
        batch, rows = _largest(
            _batches(config, work, plan, usual),
            trainer.tokens_per_microbatch,
            *_layout(config, work.whole.network.config.get_text_config()),
        )
        found = step_bytes(config, work.method, work.architecture, rows, batch.tokens)
        work.steps[key] = (rows.input_ids_RL.numel(), found)
    return work.steps[key]


# Sharding


def _gathered_bytes(config: RunConfig, work: Workload) -> float:
    """Bytes of the layers that are whole at once: the one at hand and the one before or after it.

    Where they are trained, their gradients are whole too, before they are summed.
    """
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in decoder_layers(work.whole.network))
    of_layer = weight_bytes(config, work) * largest / work.whole.size.total
    return 2 * of_layer * (1 if config.adapter is not None else 2)


# Drawing


def _drawings(config: RunConfig, work: Workload, usual: int) -> list[tuple[str, list[int], int, int]]:
    """Each drawing: a name, lengths of the prompts that there are together, answers to each, length of an answer."""
    method, plan, examples = work.method, work.plan, work.examples
    if config.sampling.engine == "vllm":
        return []  # a server's
    asked = max(
        config.evaluation.prompts,
        0 if plan is None or method.rollout is None else plan.batch_size,
        0 if plan is not None or method.candidates is None else _TURNS,
    )
    lengths = [len(examples[i].prompt_ids) for i in islice(range(len(examples)), asked)]
    found: list[tuple[str, list[int], int, int]] = []
    if plan is None:
        if method.candidates is not None:
            candidates = method.candidates
            found.append(
                ("drawing candidates", lengths, candidates.samples, min(usual, candidates.sampling.max_new_tokens))
            )
        return found
    if method.rollout is not None:
        rollout = method.rollout
        prompts = lengths[: plan.batch_size]
        found.append(("drawing a roll-out", prompts, rollout.responses, min(usual, rollout.sampling.max_new_tokens)))
    if method.generates:
        prompts = [*islice(cycle(lengths), _held_out(config, len(examples)))]
        answer = min(usual, config.evaluation.max_new_tokens)
        found.append(("answering held-out prompts", prompts, 1, answer))
    return found


def _held_out(config: RunConfig, examples: int) -> int:
    """The most prompts that are answered; a file of held-out rows, which is not read here, may have fewer."""
    data, most = config.data, config.evaluation.prompts
    if data.heldout is not None:
        return most
    return min(most, round(data.heldout_size if data.heldout_size >= 1 else data.heldout_size * examples))


def _drawing_bytes(config: RunConfig, work: Workload, prompts: Sequence[int], answers: int, longest: int) -> float:
    """Bytes of keys and values, of the choice of a token, and of the weights with the adapter merged into them."""
    text, whole = work.architecture.get_text_config(), work.whole
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    wide = config.adapter is None or config.model.dtype == "float32"
    of_token = 2 * text.num_hidden_layers * heads * width * (4 if wide else 2)
    parts = batches_by_length([answers * (length + longest) for length in prompts], _DRAWN_TOKENS)
    rows, tokens = max(
        ((len(part) * answers, max(prompts[i] for i in part) + longest) for part in parts),
        key=lambda shape: shape[0] * shape[1],
    )
    merged = 0
    if wide and config.model.quantization is None:
        modules = dict(whole.network.named_modules())
        layers = [modules[name] for name in whole.adapted if name in modules]
        merged = sum(4 * layer.base_layer.weight.numel() for layer in layers if hasattr(layer, "base_layer"))
    return rows * (tokens * of_token + text.vocab_size * _CHOICE_BYTES) + merged
