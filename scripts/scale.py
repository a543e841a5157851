"""Which settings for which size: the table of docs/scale.md, one model on one cluster, or a check of what it predicts.

::

    python scripts/scale.py                          # the table
    python scripts/scale.py --model "Llama 3.1 8B" --devices 16 --per-machine 8 [--adapter none] [--method sft]
    python scripts/scale.py --model FOLDER …         # of a folder's config.json
    python scripts/scale.py --measure                # predicted beside measured, two processes on CPUs
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.workload import workload

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.settings.config import RunConfig
    from align.training.cluster import Cluster
    from align.training.memory import Workload

_NAMES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)
_SHAPES: dict[str, tuple[int, ...]] = {
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
    options = _parser().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.measure:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        module = Path(__file__).parent / "benchmarks" / "two_processes.py"
        return subprocess.run([sys.executable, *command, str(module)], check=False).returncode
    print("\n".join(one_model(options) if options.model else table()))
    return 0


def table() -> Iterator[str]:
    """The lines of the table: DPO of 128 pairs, on devices of 80 GiB."""
    yield "| Model | Trained | One device | 8 devices | 2 machines of 8 |"
    yield "|---|---|---|---|---|"
    for name in _SHAPES:
        for adapter in (True, False):
            config, work = workload(shape(name), adapter=adapter, pairs=128, tokens=512)
            clusters = [_cluster(*size, 80.0) for size in _CLUSTERS]
            cells = [_cell(config, work, cluster, clusters[-1]) for cluster in clusters]
            yield f"| {name} | {'adapters' if adapter else 'all'} | {' | '.join(cells)} |"


def one_model(options: argparse.Namespace) -> Iterator[str]:
    """Bytes and seconds for each way to shard, and the advice."""
    from align.training.memory import estimate, readable
    from align.training.scale import Rates, advise, step_seconds

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
    advice = advise(config, work, cluster, speeds)
    yield "Nothing fits." if advice is None else f"Advice: {advice.sentence(cluster)}."


def _cell(config: RunConfig, work: Workload, cluster: Cluster, last: Cluster) -> str:
    from align.training.scale import H100, advise, step_seconds

    advice = advise(config, work, cluster)
    if advice is None or advice.cluster != cluster and cluster != last:
        return "–"
    trainer, larger = advice.config.trainer, advice.cluster != cluster
    words = [f"`{trainer.sharding}`", "recomputed" if trainer.gradient_checkpointing else ""]
    words.append("" if trainer.tokens_per_microbatch == 8192 else f"{trainer.tokens_per_microbatch:,} tokens")
    seconds = step_seconds(advice.config, work, advice.cluster, H100).total
    what = ", ".join(word for word in words if word)
    there = f"on {advice.cluster.devices}: " if larger else ""
    return f"{there}{what}: {advice.memory.peak / _GIB:.0f} GiB, {seconds:.1f} s"


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
    sys.exit(main())
