"""A step of DPO on two processes of CPUs, sharded and not: predicted by `align.training.scale`, and measured.

``torchrun --standalone --nproc-per-node 2 scripts/scale.py --measure`` starts it. The prediction is made of the rate
that a step of two layers reaches, of which nothing is gathered, and of the bytes a second that gloo gathers. Both are
measured in turn with the steps, in both processes at once, and a matrix product to compare. Medians of all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from benchmarks.flops import matmul_rates
from benchmarks.models import quiet
from benchmarks.workload import workload

if TYPE_CHECKING:
    from align.model.batch import Batch
    from align.settings.config import RunConfig
    from align.settings.sharding import ShardingName
    from align.system.processes import Processes
    from align.training.memory import Workload
    from align.training.step import Stepper

_WIDTH, _LAYERS, _VOCABULARY = 768, 8, 4096
_TOKENS = 64  # of a prompt, and of each answer
_STEPS = 4
_FEW = 2  # layers

Clock = Callable[[], float]
_CLOCKS: dict[str, Clock] = {"seconds": time.perf_counter, "cpu": time.process_time}


def measure(pairs: int) -> None:
    """Measure, and print a table on the first process."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from align.model.batch import Batch
    from align.model.loading import load_tokenizer
    from align.settings.config import ModelConfig
    from align.system.processes import Processes

    quiet(1)
    processes = Processes()
    architectures = {
        layers: LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=8,
            tie_word_embeddings=True,
        )
        for layers in (_LAYERS, _FEW)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(processes.on_first(lambda: name))
        for layers, architecture in architectures.items() if processes.is_first else ():
            LlamaForCausalLM(architecture).save_pretrained(folder / str(layers))
            load_tokenizer(ModelConfig(name="world/base")).save_pretrained(folder / str(layers))
        processes.barrier()
        works = {
            layers: workload(architecture, adapter=True, pairs=pairs, tokens=_TOKENS, dtype="float32")
            for layers, architecture in architectures.items()
        }
        sides = {
            "few": _stepper(folder, processes, "none", _FEW, *works[_FEW]),
            "none": _stepper(folder, processes, "none", _LAYERS, *works[_LAYERS]),
            "full": _stepper(folder, processes, "full", _LAYERS, *works[_LAYERS]),
        }
        processes.barrier()  # the folder is read
    batch = Batch.from_examples(processes.share([works[_FEW][1].examples[i] for i in range(pairs)]))
    measured = _measured({name: stepper.step for name, stepper in sides.items()}, batch, processes)
    for line in _lines(works, measured, pairs) if processes.is_first else ():
        print(line)


def _stepper(
    folder: Path, processes: Processes, kind: ShardingName, layers: int, config: RunConfig, work: Workload
) -> Stepper:
    from align.model.policy import Policy
    from align.settings.adapter import Adapter
    from align.training.optimizer import make_optimizer
    from align.training.step import Stepper

    policy = Policy.load(str(folder / str(layers)), adapter=Adapter(), sharding=kind)
    policy.require(work.method.roles)
    return Stepper(
        policy,
        work.method,
        processes,
        make_optimizer(policy.parameters(work.method.trains), config.trainer, 1e-6),
        tokens_per_microbatch=config.trainer.tokens_per_microbatch,
        max_grad_norm=1.0,
    )


def _measured(steps: dict[str, Any], batch: Batch, processes: Processes) -> dict[str, dict[str, list[float]]]:
    """Seconds of each step, and rates of product and gather, by name and clock."""
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in _CLOCKS})
    for turn in range(_STEPS + 1):  # the first one warms up
        found = {"product": matmul_rates("float32", rounds=2), "gather": _gather_rates()}
        for name, step in steps.items():
            processes.barrier()
            began = {clock: read() for clock, read in _CLOCKS.items()}
            step(batch)
            found[name] = {clock: read() - began[clock] for clock, read in _CLOCKS.items()}
        for name, values in found.items() if turn else ():
            for clock, value in values.items():
                measured[name][clock].append(value)
    return measured


def _gather_rates() -> dict[str, float]:
    """Bytes a second that a process receives while matrices as large as a layer's are gathered."""
    size = dist.get_world_size()
    mine = torch.zeros(10 * _WIDTH**2 // size)
    whole = torch.zeros(mine.numel() * size)
    began = {name: clock() for name, clock in _CLOCKS.items()}
    for _ in range(_LAYERS):
        dist.all_gather_into_tensor(whole, mine)
    received = _LAYERS * 4 * mine.numel() * (size - 1)
    return {name: received / (clock() - began[name]) for name, clock in _CLOCKS.items()}


def _lines(
    works: dict[int, tuple[RunConfig, Workload]], measured: dict[str, dict[str, list[float]]], pairs: int
) -> list[str]:
    from align.training.cluster import Cluster
    from align.training.scale import Rates, step_seconds

    (config, work), few = works[_LAYERS], works[_FEW]
    cluster = Cluster(devices=2, per_machine=2, room=0, accelerator=False)
    lines = [
        f"DPO of {pairs} pairs of {3 * _TOKENS} tokens, LLaMA of {work.whole.size.total / 1e6:.0f}M, {_STEPS} steps; "
        f"load {os.getloadavg()[0]:.1f}"
    ]
    for clock in _CLOCKS:
        middle = {name: median(values[clock]) for name, values in measured.items()}
        unit = Rates(flops=1.0, inside=1.0, between=1.0)
        rate = step_seconds(*few, cluster, unit).products / middle["few"]
        speeds = replace(unit, flops=rate, inside=middle["gather"], between=middle["gather"])
        lines.append(
            f"{clock}: {middle['product'] / 1e9:.0f} GFLOP/s in a product, {rate / 1e9:.0f} in a step of {_FEW}, "
            f"{middle['gather'] / 1e9:.2f} GB/s gathered"
        )
        kinds: tuple[ShardingName, ...] = ("none", "full")
        for kind in kinds:
            one = replace(config, trainer=replace(config.trainer, sharding=kind))
            told, found = step_seconds(one, work, cluster, speeds), measured[kind][clock]
            lines.append(
                f"  sharding={kind}: predicted {told.total:.2f} (products {told.products:.2f}, gathers "
                f"{told.gathers:.2f}, sums {told.sums:.2f}), measured {median(found):.2f} "
                f"({min(found):.2f}–{max(found):.2f}); predicted/measured {told.total / median(found):.2f}"
            )
        ratios = [a / b for a, b in zip(measured["full"][clock], measured["none"][clock], strict=True)]
        lines.append(f"  full/none, step by step: {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    return lines
