"""A step of DPO on two processes of CPUs, sharded and not: predicted by `align.training.scale`, and measured.

``torchrun --standalone --nproc-per-node 2 scripts/scale.py --measure`` starts it. The rate of a matrix product and
the bytes a second that gloo gathers, of which the prediction is made, are measured before each pair of steps, in both
processes at once. Of all, medians are taken.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from benchmarks.flops import matmul_rates
from benchmarks.models import quiet
from benchmarks.workload import workload

if TYPE_CHECKING:
    from align.settings.sharding import ShardingName
    from align.system.processes import Processes

_WIDTH, _LAYERS, _VOCABULARY = 768, 8, 4096
_PAIRS, _TOKENS = 4, 64
_STEPS = 4
_SHARE = 0.6  # of a product's rate that a step reaches on a CPU (docs/benchmarks.md)
_KINDS: tuple[ShardingName, ...] = ("none", "full")

Clock = Callable[[], float]
_CLOCKS: dict[str, Clock] = {"seconds": time.perf_counter, "cpu": time.process_time}


def measure() -> None:
    """Measure, and print a table on the first process."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from align.model.loading import load_tokenizer
    from align.settings.config import ModelConfig
    from align.system.processes import Processes

    quiet(1)
    processes = Processes()
    architecture = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=8,
        tie_word_embeddings=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(processes.on_first(lambda: name))
        if processes.is_first:
            LlamaForCausalLM(architecture).save_pretrained(folder)
            load_tokenizer(ModelConfig(name="world/base")).save_pretrained(folder)
        processes.barrier()
        measured, rates = _measured(folder, architecture, processes)
        processes.barrier()
    for line in _lines(architecture, measured, rates) if processes.is_first else ():
        print(line)


def _measured(folder: Path, architecture: Any, processes: Processes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians of the steps of each kind, and of the rates, by clock."""
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.settings.adapter import Adapter
    from align.training.optimizer import make_optimizer
    from align.training.step import Stepper

    config, work = workload(architecture, adapter=True, pairs=_PAIRS, tokens=_TOKENS, dtype="float32")
    steppers: dict[str, Any] = {}
    for kind in _KINDS:
        policy = Policy.load(str(folder), adapter=Adapter(), sharding=kind)
        policy.require(work.method.roles)
        steppers[kind] = Stepper(
            policy,
            work.method,
            processes,
            make_optimizer(policy.parameters(work.method.trains), config.trainer, 1e-6),
            tokens_per_microbatch=config.trainer.tokens_per_microbatch,
            max_grad_norm=1.0,
        )
    batch = Batch.from_examples(processes.share([work.examples[i] for i in range(_PAIRS)]))
    layer = sum(p.numel() for p in steppers["none"].policy.model.parameters() if not p.requires_grad) // _LAYERS
    steps: dict[str, Any] = {kind: defaultdict(list) for kind in _KINDS}
    rates: dict[str, Any] = defaultdict(list)
    for turn in range(_STEPS + 1):  # the first one warms up
        processes.barrier()
        products = matmul_rates("float32", rounds=2)
        gathers = _gather_rates(layer)
        for kind in _KINDS:
            processes.barrier()
            began = {name: clock() for name, clock in _CLOCKS.items()}
            steppers[kind].step(batch)
            for name, clock in _CLOCKS.items():
                if turn:
                    steps[kind][name].append(clock() - began[name])
        for name in _CLOCKS if turn else ():
            rates[name].append((products[name], gathers[name]))
    return steps, rates


def _gather_rates(numbers: int) -> dict[str, float]:
    """Bytes a second that a process receives while a layer is gathered."""
    size = dist.get_world_size()
    mine, whole = torch.zeros(numbers // size), torch.zeros(numbers // size * size)
    began = {name: clock() for name, clock in _CLOCKS.items()}
    for _ in range(_LAYERS):
        dist.all_gather_into_tensor(whole, mine)
    received = _LAYERS * 4 * mine.numel() * (size - 1)
    return {name: received / (clock() - began[name]) for name, clock in _CLOCKS.items()}


def _lines(architecture: Any, measured: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    from dataclasses import replace

    from align.training.cluster import Cluster
    from align.training.scale import Rates, step_seconds

    config, work = workload(architecture, adapter=True, pairs=_PAIRS, tokens=_TOKENS, dtype="float32")
    cluster = Cluster(devices=2, per_machine=2, room=0, accelerator=False)
    lines = [
        f"LLaMA of {work.whole.size.total / 1e6:.0f}M, {_PAIRS} pairs of {3 * _TOKENS} tokens, {_STEPS} steps; load "
        f"{os.getloadavg()[0]:.1f}",
    ]
    for name in _CLOCKS:
        product, gathered = (median(values) for values in zip(*rates[name], strict=True))
        speeds = Rates(flops=_SHARE * product, inside=gathered, between=gathered)
        lines.append(f"{name}: {product / 1e9:.0f} GFLOP/s in a product, {gathered / 1e9:.2f} GB/s gathered")
        for kind in _KINDS:
            one = replace(config, trainer=replace(config.trainer, sharding=kind))
            told, found = step_seconds(one, work, cluster, speeds), measured[kind][name]
            lines.append(
                f"  sharding={kind}: predicted {told.total:.2f} (products {told.products:.2f}, gathers "
                f"{told.gathers:.2f}, sums {told.sums:.3f}), measured {median(found):.2f} "
                f"({min(found):.2f}–{max(found):.2f}); predicted/measured {told.total / median(found):.2f}"
            )
        ratios = [a / b for a, b in zip(measured["full"][name], measured["none"][name], strict=True)]
        lines.append(f"  full/none, step by step: {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    return lines
