"""One optimiser step of DPO on one GPU beside TRL's DPOTrainer: a random LLaMA of 1.2 billion parameters in bfloat16.

Each side is built, measured and deleted in turn, on the same pairs: random tokens whose lengths have the distribution
of a preference dataset. It learns from all of them twice, and the second time is measured: in the first, kernels are
built for what is new. TRL at its best takes them sorted by length, with Liger's kernels and without recomputation. MFU
holds the useful FLOPs of `benchmarks.flops` against the rate of a matrix product.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.flops import matmul_rates, sizes_of, useful_flops
from benchmarks.measuring import report, settings_of, spread, versions
from benchmarks.models import quiet
from benchmarks.trl_side import on_tokens

if TYPE_CHECKING:
    from align.data import Example
    from align.method.base import Method
    from align.model.batch import Batch, Layout
    from align.training.step import Stepper

Side = Callable[[Sequence["Example"], int], dict[str, Any]]
"""Takes pairs and their number in a step; returns the seconds of each step, and what else is told of the side."""

RATE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Log-normal lengths in tokens."""

    prompt: float
    """Median."""
    response: float
    responses: int = 2
    spread: float = 0.6
    """Standard deviation of the logarithm."""


WORKLOADS = {
    "responses longer (P/R 0.42)": Lengths(prompt=150, response=360),
    "prompts longer (P/R 4)": Lengths(prompt=900, response=225, spread=0.3),
}
CANDIDATES = Lengths(prompt=1000, response=125, responses=8, spread=0.2)


def bench_gpu(options: argparse.Namespace) -> None:
    """Measure each side in turn and print the result."""
    import torch

    quiet(options.threads)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        weights = _save_model(folder, options)
        on_gpu = torch.cuda.is_available()
        peak = matmul_rates("bfloat16", device="cuda" if on_gpu else "cpu", size=8192 if on_gpu else 512)["seconds"]
        rows: list[dict[str, Any]] = []
        for work, sides, lengths, pairs in _works(folder, options):
            examples = draw_examples(lengths, options.steps * pairs, options)
            for side, measure in sides.items():
                rows.append({"work": work, "side": side, **_measured(measure, examples, pairs, weights, peak)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        result = {
            "benchmark": "gpu",
            "settings": settings_of(options),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "weights": weights,
            "matmul_flops": peak,
            "versions": versions(),
            "rows": rows,
        }
    report(result, options, print_table)


def _works(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Side], Lengths, int]]:
    """Yield name, sides, lengths and examples of a step. TRL's defaults come first: Liger's functions stay in place."""
    ours = {
        "align, tree": _ours(folder, options, layout="tree"),
        "align, tree, padded": _ours(folder, options, layout="tree", packed=False),
        "align, flat": _ours(folder, options, layout="flat"),
        "align, flat, padded": _ours(folder, options, layout="flat", packed=False),
    }
    candidates = {
        "align, tree": _ours(folder, options, layout="tree", ranking=True),
        "align, flat": _ours(folder, options, layout="flat", ranking=True),
        "align, flat, padded": _ours(folder, options, layout="flat", ranking=True, packed=False),
    }
    best = {"gradient_checkpointing": False, "use_liger_kernel": True}
    works = list(WORKLOADS.items())
    for work, lengths in works:
        yield work, {"TRL, defaults": _theirs(folder, options)}, lengths, options.pairs
    yield "8 candidates (P/R 8)", candidates, CANDIDATES, max(1, options.pairs // 4)
    for work, lengths in works:
        yield work, {**ours, "TRL, best": _theirs(folder, options, by_length=True, **best)}, lengths, options.pairs


def _save_model(folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """Write a random LLaMA and a tokenizer; returns its sizes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=max(1, options.hidden // 256),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    torch.manual_seed(options.seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.save_pretrained(folder)
    words = {"<|endoftext|>": 0, "<|pad|>": 1, **{f"w{i}": i for i in range(2, 1000)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>")
    wrapped.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    wrapped.save_pretrained(folder)
    return sizes_of(folder)


def draw_examples(lengths: Lengths, count: int, options: argparse.Namespace) -> list[Example]:
    """Draw examples of random tokens."""
    import numpy as np

    from align.data import Example

    rng = np.random.default_rng(options.seed)

    def ids(median: float) -> list[int]:
        n = int(np.clip(median * np.exp(lengths.spread * rng.standard_normal()), 8, options.max_length // 2))
        return rng.integers(2, options.vocabulary, n).tolist()

    return [
        Example(
            index=i,
            prompt_ids=ids(lengths.prompt),
            responses=[[*ids(lengths.response), 0] for _ in range(lengths.responses)],
            scores=[float(lengths.responses - k) for k in range(lengths.responses)],
        )
        for i in range(count)
    ]


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _measured(
    measure: Side, examples: Sequence[Example], pairs: int, weights: dict[str, int], peak: float
) -> dict[str, Any]:
    """Seconds a step, samples a second, MFU and peak memory of one side; the error where it fails."""
    import torch

    from align.model.batch import Batch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found = measure(examples, pairs)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    times: list[float] = found.pop("seconds")
    seconds = times[len(times) // 2 :]
    total = sum(seconds)
    flops = useful_flops(Batch.from_examples(examples), found["layout"], weights, forwards=int(found["reference"]))
    return {
        "seconds": spread(seconds),
        "first_seconds": times[0],
        "samples_per_second": len(examples) / total,
        "mfu": flops / total / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
        **found,
    }


def _ours(
    folder: Path, options: argparse.Namespace, *, layout: Layout, ranking: bool = False, packed: bool = True
) -> Side:
    def measure(examples: Sequence[Example], pairs: int) -> dict[str, Any]:
        from align.model.batch import Batch
        from align.model.policy import Policy
        from align.settings.adapter import Adapter
        from align.settings.config import TrainerConfig
        from align.system.processes import Processes
        from align.training.optimizer import make_optimizer
        from align.training.step import Stepper
        from methods import DPO, RRHF

        start = _now()
        policy = Policy.load(
            str(folder), adapter=Adapter(r=options.rank), seed=options.seed, dtype="bfloat16", layout=layout
        )
        loaded = _now() - start
        policy.packed &= packed
        method: Method = RRHF() if ranking else DPO(beta=0.1)
        policy.require(method.roles)
        stepper = Stepper(
            policy,
            method,
            Processes("bfloat16"),
            make_optimizer(policy.parameters(method.trains), TrainerConfig(), RATE),
            tokens_per_microbatch=options.tokens_per_microbatch,
            max_grad_norm=1.0,
        )
        seconds: list[float] = []
        micro = 0
        for first in [*range(0, len(examples), pairs)] * 2:
            batch = Batch.from_examples(examples[first : first + pairs])
            began = _now()
            stepper.step(batch)
            seconds.append(_now() - began)
            micro += len(policy.micro_batches(batch, options.tokens_per_microbatch))
        if options.profile and layout == "tree" and not ranking:
            _profile(stepper, Batch.from_examples(examples[:pairs]), options.profile)
        return {
            "seconds": seconds,
            "layout": policy.layout,
            "reference": not ranking,
            "micro_batches_per_step": micro / len(seconds),
            "load_seconds": loaded,
            "notes": policy.notes,
        }

    return measure


def _profile(stepper: Stepper, batch: Batch, folder: Path) -> None:
    """Write which kernels of a step take the longest."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as record:
        stepper.step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = record.key_averages().table(sort_by=by, row_limit=60, max_name_column_width=80)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stepper.policy.layout}-{batch.K}-{len(list(folder.iterdir()))}.txt").write_text(
        table, encoding="utf-8"
    )


def _theirs(folder: Path, options: argparse.Namespace, *, by_length: bool = False, **settings: Any) -> Side:
    def measure(examples: Sequence[Example], pairs: int) -> dict[str, Any]:
        import torch
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl import DPOConfig, DPOTrainer

        from align.settings.adapter import Adapter

        seconds, began = list[float](), 0.0

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                nonlocal began
                began = _now()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds.append(_now() - began)

        if by_length:
            examples = sorted(examples, key=lambda e: len(e.prompt_ids) + max(map(len, e.responses)), reverse=True)
        examples = [*examples, *examples]
        per_device = next(n for n in (16, 8, 4, 2, 1) if n <= options.trl_pairs and pairs % n == 0)
        trainer = on_tokens(DPOTrainer)(
            model=str(folder),
            args=DPOConfig(
                output_dir=str(folder / "trl"),
                per_device_train_batch_size=per_device,
                gradient_accumulation_steps=pairs // per_device,
                max_steps=len(examples) // pairs,
                max_length=8192,
                remove_unused_columns=False,
                bf16=torch.cuda.is_available(),
                use_cpu=not torch.cuda.is_available(),
                model_init_kwargs={"dtype": "bfloat16"},
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                train_sampling_strategy="sequential",
                **settings,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "prompt_ids": [example.prompt_ids for example in examples],
                    "chosen_ids": [example.responses[0] for example in examples],
                    "rejected_ids": [example.responses[1] for example in examples],
                }
            ),
            peft_config=Adapter(r=options.rank).to_peft(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Clock())
        trainer.train()
        return {"seconds": seconds, "layout": "flat", "reference": True, "per_device_pairs": per_device}

    return measure


def print_table(result: dict[str, Any]) -> None:
    """Print each side's figures."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    console.print(
        f"{result['device']}, {result['matmul_flops'] / 1e12:.0f} TFLOP/s in a bfloat16 product; {result['versions']}"
    )
    table = Table("work", "side", "seconds a step", "samples/s", "MFU", "peak GiB")
    for row in result["rows"]:
        if "error" in row:
            table.add_row(row["work"], row["side"], row["error"][:80])
            continue
        table.add_row(
            row["work"],
            row["side"],
            f"{row['seconds']['median']:.3f}",
            f"{row['samples_per_second']:.1f}",
            f"{row['mfu']:.3f}",
            f"{row['peak_gib']:.1f}",
        )
    console.print(table)
