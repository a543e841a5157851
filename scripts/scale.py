"""Which settings for which size: the table of docs/scale.md, one model on one cluster, or a check of what it predicts.

::

    python scripts/scale.py                          # the table
    python scripts/scale.py --model "Llama 3.1 8B" --devices 16 --per-machine 8 [--adapter none] [--method sft]
    python scripts/scale.py --model FOLDER …         # of a folder's config.json
    torchrun --standalone --nproc-per-node 2 scripts/scale.py --measure    # predicted beside measured, on CPUs
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.workload import workload

from align.cli.console import hide_noise, while_read

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.settings.config import RunConfig
    from align.training.cluster import Cluster
    from align.training.memory import Workload

_NAMES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)
_SHAPES: dict[str, tuple[Any, ...]] = {
    "Llama 3.2 1B": (128256, 2048, 8192, 16, 32, 8, True),
    "Llama 3.2 3B": (128256, 3072, 8192, 28, 24, 8, True),
    "Llama 3.1 8B": (128256, 4096, 14336, 32, 32, 8, False),
    "Qwen 2.5 14B": (152064, 5120, 13824, 48, 40, 8, False),
    "Qwen 2.5 32B": (152064, 5120, 27648, 64, 40, 8, False),
    "Llama 3.1 70B": (128256, 8192, 28672, 80, 64, 8, False),
}
_GIB = 2**30
_CLUSTERS = ((1, 1), (8, 8), (16, 8))  # of the table: devices, and of a machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was asked for; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    per_machine = options.per_machine or options.devices
    if min(options.devices, per_machine) < 1 or options.devices % per_machine:
        parser.error("--devices and --per-machine must be at least 1, and the machines alike")
    if options.model and options.model not in _SHAPES and not Path(options.model, "config.json").is_file():
        parser.error(f"--model: {options.model} is no folder with a config.json, and none of {', '.join(_SHAPES)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    hide_noise()
    if options.measure:
        if os.environ.get("WORLD_SIZE") != "2":
            parser.error("--measure needs two processes: torchrun --standalone --nproc-per-node 2 scripts/scale.py …")
        from benchmarks.two_processes import measure

        measure(options.pairs)
        return 0
    for line in one_model(options) if options.model else table():
        print(line, flush=True)
    return 0


def table() -> Iterator[str]:
    """The lines of the table: DPO of 128 pairs, on devices of 80 GiB."""
    yield "| Model | Trained | One device | 8 devices | 2 machines of 8 |"
    yield "|---|---|---|---|---|"
    for name in _SHAPES:
        yield from (row(name, adapter=adapter) for adapter in (True, False))


def row(name: str, *, adapter: bool) -> str:
    """A line of the table."""
    config, work = workload(shape(name), adapter=adapter)
    clusters = [_cluster(*size, 80.0) for size in _CLUSTERS]
    cells = [_cell(config, work, cluster, clusters[-1]) for cluster in clusters]
    return f"| {name} | {'adapters' if adapter else 'all'} | {' | '.join(cells)} |"


def one_model(options: argparse.Namespace) -> Iterator[str]:
    """Bytes and seconds for each way to shard, and the advice."""
    from align.training.memory import estimate, readable
    from align.training.scale import Rates, advice, step_seconds

    cluster = _cluster(options.devices, options.per_machine or options.devices, options.room)
    speeds = Rates(flops=options.flops * 1e12, inside=options.inside * 1e9, between=options.between * 1e9)
    config, work = workload(shape(options.model), adapter=options.adapter != "none", method=options.method)
    for kind in ("none", "node", "full"):
        one = replace(config, trainer=replace(config.trainer, sharding=kind))
        time = step_seconds(one, work, cluster, speeds)
        yield (
            f"sharding={kind}: {readable(estimate(one, work, cluster).peak)} a device; a step {time.total:.2f} s: "
            f"products {time.products:.2f}, gathers {time.gathers:.2f}, sums {time.sums:.2f}"
        )
    yield f"Advice: {advice(config, work, cluster, speeds)}"


def _cell(config: RunConfig, work: Workload, cluster: Cluster, last: Cluster) -> str:
    from align.training.scale import H100, advise, step_seconds

    found = advise(config, work, cluster)
    if found is None or (found.cluster != cluster and cluster != last):
        return "–"
    trainer, larger = found.config.trainer, found.cluster != cluster
    words = [f"`{trainer.sharding}`", "recomputed" if trainer.gradient_checkpointing else ""]
    words.append("" if trainer.tokens_per_microbatch == 8192 else f"{trainer.tokens_per_microbatch:,} tokens")
    seconds = step_seconds(found.config, work, found.cluster, H100).total
    what = ", ".join(word for word in words if word)
    there = f"on {found.cluster.devices}: " if larger else ""
    return f"{there}{what}: {found.memory.peak / _GIB:.0f} GiB, {seconds:.1f} s"


def shape(name: str) -> PretrainedConfig:
    """Return the configuration of a model of the table, or of a folder."""
    from transformers import AutoConfig, LlamaConfig

    if name in _SHAPES:
        return LlamaConfig(**dict(zip(_NAMES, _SHAPES[name], strict=True)))
    return AutoConfig.from_pretrained(name)


def _cluster(devices: int, per_machine: int, gib: float) -> Cluster:
    from align.training.cluster import Cluster

    return Cluster(devices=devices, per_machine=per_machine, room=gib * _GIB)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scale.py", description="Which settings for which size.")
    parser.add_argument("--measure", action="store_true", help="two processes here, predicted beside measured")
    parser.add_argument("--pairs", type=int, default=4, help="of a step that is measured (default: 4)")
    parser.add_argument("--model", help=f"a folder with a config.json, or one of {', '.join(_SHAPES)}; else the table")
    parser.add_argument("--method", default="dpo", help="a registered method that learns from pairs")
    parser.add_argument("--adapter", default="lora", choices=("lora", "none"))
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--per-machine", type=int, help="devices of a machine; all without it")
    for name, default, what in (
        ("room", 80, "GiB of a device"),
        ("flops", 395, "TFLOP/s that a training step reaches"),
        ("inside", 450, "GB/s between devices of a machine"),
        ("between", 400, "GB/s into a machine from others"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{what} (default: {default})")
    return parser


if __name__ == "__main__":
    sys.exit(while_read(main))
