"""Benchmarks of this toolkit beside its peers, on the same data.

::

    python scripts/bench.py dpo        # an optimiser step beside TRL's trainer; so do sft, kto and reward
    python scripts/bench.py ppo        # a step of RLOO and of PPO beside TRL's RLOOTrainer and GRPOTrainer
    python scripts/bench.py cost       # time and memory of RRHF, SLiC-HF, RFT and DPO relative to PPO
    python scripts/bench.py memory     # PPO with its roles on one base, and with a full copy for each
    python scripts/bench.py sampling   # tokens per second beside transformers' generate
    python scripts/bench.py sentiment  # every method on a small model of stories: reward against KL
    python scripts/bench.py stories    # pairs of that task, and the command that compares all methods on them
    python scripts/bench.py data       # reading, checking and tokenising pairs beside TRL's preparation
    python scripts/bench.py paths      # RFT on arithmetic: accuracy against distinct paths per question
    python scripts/bench.py diagnosis  # how often align diagnose finds an illness, in sick and in healthy runs
    python scripts/bench.py gpu        # an optimiser step of DPO on one GPU beside TRL's, a LLaMA of 1.2 billion
    python scripts/bench.py dpo --json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import cost, data, diagnosis, gpu, online, paths, sampling, sentiment, side_by_side, stories
from benchmarks.pairs import find_pairs
from benchmarks.trl_side import PEERS

from align.cli.console import while_read

_SHARED = Path(__file__).resolve().parents[2] / "shared"

Number = tuple[str, int, str]
"""Name, default and meaning of an option."""


@dataclass(frozen=True, kw_only=True)
class _Benchmark:
    run: Callable[[argparse.Namespace], None]
    summary: str
    numbers: tuple[Number, ...]
    reads_pairs: bool = False
    """It has the option --data."""
    add_more: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds options that are not numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark named on the command line and print its result; returns the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from align.errors import UserError

    try:
        with TemporaryDirectory() as folder:
            if getattr(options, "data", options) is None:
                options.data = find_pairs(Path(folder), options.seed)
            options.benchmark(options)
    except UserError as error:
        sys.exit(f"bench.py: {error}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure this toolkit beside its peers.")
    subparsers = parser.add_subparsers(required=True, metavar="benchmark")
    for name, benchmark in _BENCHMARKS.items():
        one = subparsers.add_parser(
            name,
            help=benchmark.summary,
            description=benchmark.summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        one.set_defaults(benchmark=benchmark.run)
        one.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if benchmark.reads_pairs:
            one.add_argument("--data", type=Path, help="file of pairs; without it those of HH-RLHF, or generated ones")
        for option, default, meaning in (*benchmark.numbers, *_ALL):
            one.add_argument(f"--{option}", type=int, default=default, help=meaning)
        if benchmark.add_more:
            benchmark.add_more(one)
    return parser


def _add_sentiment(parser: argparse.ArgumentParser) -> None:
    _add_stories(parser)
    parser.add_argument(
        "--judge", type=Path, default=_SHARED / "models/babyllama-tok361", help="model that computes the perplexity"
    )
    parser.add_argument("--methods", nargs="+", choices=sentiment.METHODS, default=sentiment.METHODS)
    parser.set_defaults(output=Path("runs/sentiment"))


def _add_stories(parser: argparse.ArgumentParser) -> None:
    for name, path, meaning in (
        ("model", "models/stories260K", "small model of stories"),
        ("stories", "data/tinystories-sample/train_head_2MiB.txt", "text with <|endoftext|> between stories"),
        ("lexicon", "data/vader-lexicon/vader_lexicon.txt", "words and their valence"),
    ):
        parser.add_argument(f"--{name}", type=Path, default=_SHARED / path, help=meaning)
    parser.add_argument("--output", type=Path, default=Path("runs/stories"), help="folder of what it leaves")


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[1, 3, 10, 30, 100], help="samples drawn for each question"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/paths"), help="folder of runs and chart")


def _add_illnesses(parser: argparse.ArgumentParser) -> None:
    names = list(diagnosis.ILLNESSES)
    parser.add_argument("--illnesses", nargs="+", choices=names, default=names, help="which of them")
    parser.add_argument("--output", type=Path, default=Path("runs/diagnosis"), help="folder of what was found")


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", type=Path, help="folder for tables of the slowest kernels of a step of ours")


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", default="world/base", help="model whose tokenizer and chat template are used")


def _add_side_by_side(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="folder of a real model; without it a random LLaMA")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="precision of both sides")
    parser.add_argument("--peer", choices=["defaults", "best"], default="defaults", help="TRL as it comes, or tuned")


def _rollout(*, steps: int, prompts: int, responses: int, tokens: int, longest: int) -> tuple[Number, ...]:
    return (
        ("steps", steps, "measured steps of each side"),
        ("warmup", 1, "steps before the measured ones"),
        ("prompts", prompts, "prompts per step"),
        ("responses", responses, "responses per prompt"),
        ("tokens", tokens, "tokens of each response"),
        ("max-prompt", longest, "tokens of the longest prompt"),
    )


def _model(*, hidden: int, layers: int) -> tuple[Number, ...]:
    return (
        ("hidden", hidden, "hidden size of the model"),
        ("layers", layers, "layers of the model"),
        ("vocabulary", 16384, "tokens of the vocabulary"),
        ("rank", 16, "rank of the adapters"),
        ("tokens-per-microbatch", 8192, "budget of our micro-batches"),
    )


_ALL: tuple[Number, ...] = (
    ("threads", os.cpu_count() or 1, "threads of PyTorch"),
    ("seed", 0, "seed of weights, selection and order of the data"),
)
_SMALL = _model(hidden=512, layers=8)
_ROLLOUT = _rollout(steps=5, prompts=8, responses=4, tokens=48, longest=256)


def _side_by_side(name: str) -> _Benchmark:
    trainer = f"{PEERS[name].trainer}Trainer"
    return _Benchmark(
        run=partial(side_by_side.bench, name=name),
        summary=f"one optimiser step beside TRL's {trainer}, in turns, each in its own process, with LoRA",
        numbers=(
            ("steps", 10, "measured steps of each side"),
            ("warmup", 2, "steps before the measured ones"),
            ("pairs", 8, "examples per step"),
            ("max-length", 1024, "tokens of prompt and response together"),
            *_SMALL,
        ),
        reads_pairs=True,
        add_more=_add_side_by_side,
    )


_BENCHMARKS = {
    **{name: _side_by_side(name) for name in ("sft", "dpo", "kto", "reward")},
    "ppo": _Benchmark(
        run=online.bench_ppo,
        summary="a roll-out with its update by RLOO and PPO beside TRL's RLOOTrainer and GRPOTrainer, in turns, each "
        "in its own process, on a random LLaMA with LoRA",
        numbers=(*_ROLLOUT, *_SMALL),
        reads_pairs=True,
    ),
    "cost": _Benchmark(
        run=cost.bench_cost,
        summary="drawing candidates and a step of RRHF, SLiC-HF, RFT and DPO on them in relation to PPO, in turns, "
        "each in its own process, on a random LLaMA with LoRA",
        numbers=(*_ROLLOUT, *_SMALL),
        reads_pairs=True,
    ),
    "memory": _Benchmark(
        run=online.bench_memory,
        summary="peak memory of PPO with its roles as adapters on one base, and with a full copy of the model for each",
        numbers=(
            *_rollout(steps=1, prompts=2, responses=2, tokens=8, longest=64),
            *_model(hidden=1024, layers=16),
        ),
        reads_pairs=True,
    ),
    "sampling": _Benchmark(
        run=sampling.bench_sampling,
        summary="tokens per second of the embedded model beside transformers' generate, in turns",
        numbers=(
            ("rounds", 5, "measured rounds of each side"),
            ("prompts", 64, "number of prompts"),
            ("responses", 4, "responses per prompt"),
            ("tokens", 64, "longest response"),
        ),
    ),
    "sentiment": _Benchmark(
        run=sentiment.bench_sentiment,
        summary="every method on a small model of stories, with positive sentiment as the reward: reward against KL, "
        "perplexity and time",
        numbers=(
            ("prompts", 1024, "beginnings of stories for training"),
            ("rank", 16, "rank of the adapters"),
        ),
        add_more=_add_sentiment,
    ),
    "stories": _Benchmark(
        run=stories.bench_stories,
        summary="pairs of controlled sentiment, and the command that compares all methods on them",
        numbers=(
            ("prompts", 2000, "beginnings of stories for training"),
            ("rank", 16, "rank of the adapters"),
        ),
        add_more=_add_stories,
    ),
    "data": _Benchmark(
        run=data.bench_data,
        summary="reading, checking and tokenising pairs of conversations beside TRL's own preparation, in turns",
        numbers=(
            ("rows", 20000, "pairs"),
            ("rounds", 3, "measured rounds of each side"),
            ("processes", os.cpu_count() or 1, "processes of TRL's preparation"),
        ),
        reads_pairs=True,
        add_more=_add_tokenizer,
    ),
    "paths": _Benchmark(
        run=paths.bench_paths,
        summary="rejection-sampling fine-tuning on arithmetic that can be solved in several orders",
        numbers=(
            ("questions", 120, "questions for training"),
            ("heldout", 1000, "questions for evaluation"),
            ("epochs", 12, "epochs of each training"),
            ("pool", 3, "models that draw in the last RFT"),
            ("duplicates", 30, "samples per question in the RFT that keeps all right ones"),
        ),
        add_more=_add_paths,
    ),
    "gpu": _Benchmark(
        run=gpu.bench_gpu,
        summary="one optimiser step of DPO on one GPU beside TRL's DPOTrainer, on a random LLaMA in bfloat16 with LoRA",
        numbers=(
            ("steps", 5, "measured steps of each side, which takes them twice"),
            ("pairs", 32, "pairs per step"),
            ("trl-pairs", 8, "most pairs of TRL's micro-batches"),
            ("max-length", 2048, "tokens of prompt and response together"),
            ("hidden", 2048, "hidden size of the model"),
            ("layers", 16, "layers of the model"),
            ("vocabulary", 128256, "tokens of the vocabulary"),
            ("rank", 16, "rank of the adapters"),
            ("tokens-per-microbatch", 16384, "budget of our micro-batches"),
        ),
        add_more=_add_profile,
    ),
    "diagnosis": _Benchmark(
        run=diagnosis.bench_diagnosis,
        summary="illnesses that align diagnose finds in sick and in healthy short runs on the embedded world",
        numbers=(("runs", 20, "sick runs of each illness, and healthy ones of each method"),),
        add_more=_add_illnesses,
    ),
}


if __name__ == "__main__":
    sys.exit(while_read(main))
