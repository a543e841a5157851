"""Benchmarks of this toolkit beside its peers, on the same data.

::

    python scripts/bench.py dpo        # an optimiser step beside TRL's trainer; so do sft, kto and reward
    python scripts/bench.py grpo       # a step of RLOO and of GRPO beside TRL's trainers of these names
    python scripts/bench.py ppo        # a step of PPO beside TRL's RLOOTrainer
    python scripts/bench.py rrhf       # RRHF with each prompt computed once, and once for each response
    python scripts/bench.py methods    # a step of every off-line method relative to DPO
    python scripts/bench.py sample     # tokens per second beside transformers' generate and continuous batching
    python scripts/bench.py processes  # a step of DPO and of PPO by two processes beside one
    python scripts/bench.py startup    # import, --help and the first optimiser step after the command
    python scripts/bench.py data       # reading, checking and tokenising pairs beside TRL's preparation
    python scripts/bench.py cost       # time and memory of RRHF, SLiC-HF, RFT and DPO relative to PPO
    python scripts/bench.py memory     # PPO with its roles on one base, and with a full copy for each
    python scripts/bench.py sentiment  # every method on a small model of stories: reward against KL
    python scripts/bench.py stories    # pairs of that task, and the command that compares all methods on them
    python scripts/bench.py paths      # RFT on arithmetic: accuracy against distinct paths per question
    python scripts/bench.py diagnosis  # how often align diagnose finds an illness, in sick and in healthy runs
    python scripts/bench.py gpu        # an optimiser step of DPO on one GPU beside TRL's, a LLaMA of 1.2 billion
    python scripts/bench.py dpo --json
    python scripts/bench.py all --output FILE.json   # all those beside a peer
    python scripts/bench.py all --against FILE.json  # what became slower since then; exits 1 if anything did
    python scripts/bench.py --page                   # docs/benchmarks.md of docs/benchmarks/*.json
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
from typing import Any

from benchmarks import (
    cost,
    data,
    diagnosis,
    everything,
    gpu,
    methods,
    online,
    paths,
    processes,
    sample,
    sentiment,
    side_by_side,
    startup,
    stories,
)
from benchmarks.models import VOCABULARY
from benchmarks.page import page
from benchmarks.pairs import find_pairs
from benchmarks.trl_side import PEERS

from align.cli.console import while_read
from align.system.files import write_text

_ROOT = Path(__file__).resolve().parents[1]
_SHARED = _ROOT.parent / "shared"
_READ = ("model", "stories", "lexicon", "judge", "against")
"""Options that name what is read."""
_MAY_BE_0 = ("seed", "warmup")

Number = tuple[str, int, str]
"""Name, default and meaning of an option."""


@dataclass(frozen=True, kw_only=True)
class _Benchmark:
    run: Callable[[argparse.Namespace], bool | None]
    """False: something is wrong with the result."""
    summary: str
    numbers: tuple[Number, ...]
    reads_pairs: bool = False
    """It has the option --data."""
    add_more: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds options that are not numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark named on the command line and print its result; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.page:
        write_text(_ROOT / "docs" / "benchmarks.md", page(_ROOT / "docs"))
        return 0
    if "benchmark" not in options:
        parser.error("name a benchmark, or give --page")
    for name, value in vars(options).items():
        least = 0 if name in _MAY_BE_0 else 1
        numbers: list[Any] = value if isinstance(value, list) else [value]
        if any(type(number) is int and number < least for number in numbers):
            parser.error(f"--{name.replace('_', '-')} must be at least {least}")
    for name in _READ:
        path: Path | None = getattr(options, name, None)
        if path is not None and not path.exists():
            parser.error(f"--{name}: there is no {path}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from align.errors import UserError

    try:
        with TemporaryDirectory() as folder:
            if getattr(options, "data", options) is None:
                options.data = find_pairs(Path(folder), options.seed)
            return int(options.benchmark(options) is False)
    except UserError as error:
        sys.exit(f"bench.py: {error}")
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure this toolkit beside its peers.")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md of docs/benchmarks/, run nothing")
    subparsers = parser.add_subparsers(metavar="benchmark")
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


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="folder of a real model; without it a random LLaMA")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="precision of both sides")


def _add_model_and_peer(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_peer(parser)


def _add_peer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", choices=["defaults", "best"], default="defaults", help="TRL as it comes, or tuned")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="file for all results")
    parser.add_argument("--against", type=Path, help="such a file of an earlier time: say what became slower")


def _rollout(*, steps: int, prompts: int, responses: int, tokens: int, longest: int) -> tuple[Number, ...]:
    return (
        ("steps", steps, "measured steps of each side"),
        ("warmup", 1, "steps before the measured ones"),
        ("prompts", prompts, "prompts per step"),
        ("responses", responses, "responses per prompt"),
        ("tokens", tokens, "tokens of each response"),
        ("max-prompt", longest, "tokens of the longest prompt"),
    )


def _steps(steps: int) -> tuple[Number, ...]:
    return (
        ("steps", steps, "measured steps of each side"),
        ("warmup", 2, "steps before the measured ones"),
        ("pairs", 8, "examples per step"),
        ("max-length", 1024, "tokens of prompt and response together"),
    )


def _model(*, hidden: int, layers: int) -> tuple[Number, ...]:
    return (
        ("hidden", hidden, "hidden size of the model"),
        ("layers", layers, "layers of the model"),
        ("vocabulary", VOCABULARY, "tokens of the vocabulary"),
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
        numbers=(*_steps(10), *_SMALL),
        reads_pairs=True,
        add_more=_add_model_and_peer,
    )


_BENCHMARKS = {
    **{name: _side_by_side(name) for name in ("sft", "dpo", "kto", "reward")},
    "rrhf": _Benchmark(
        run=side_by_side.bench_rrhf,
        summary="one optimiser step of RRHF, each prompt computed once for all responses and once for each, in turns",
        numbers=(("responses", 6, "responses to a prompt"), *_steps(10), *_SMALL),
        reads_pairs=True,
        add_more=_add_model,
    ),
    "grpo": _Benchmark(
        run=online.bench_grpo,
        summary="a roll-out with its update by RLOO and GRPO beside TRL's RLOOTrainer and GRPOTrainer, in turns, each "
        "in its own process, on a random LLaMA with LoRA",
        numbers=(*_ROLLOUT, *_SMALL),
        reads_pairs=True,
        add_more=_add_peer,
    ),
    "ppo": _Benchmark(
        run=online.bench_ppo,
        summary="a roll-out with its update by PPO with reward and value roles beside TRL's RLOOTrainer, in turns, "
        "each in its own process, on a random LLaMA with LoRA",
        numbers=(*_ROLLOUT, *_SMALL),
        reads_pairs=True,
        add_more=_add_peer,
    ),
    "methods": _Benchmark(
        run=methods.bench_methods,
        summary="a step of every off-line method on the same pairs, relative to DPO, in turns, on a random LLaMA",
        numbers=(*_steps(5), *_SMALL),
        reads_pairs=True,
    ),
    "processes": _Benchmark(
        run=processes.bench_processes,
        summary="a step of DPO and of PPO by one process and by two, in turns, on a random LLaMA",
        numbers=(
            ("rounds", 3, "runs of each"),
            ("processes", 2, "processes beside one"),
            *_steps(6),
            *_SMALL[:-1],
        ),
        reads_pairs=True,
    ),
    "startup": _Benchmark(
        run=startup.bench_startup,
        summary="import align, --help and the first optimiser step of DPO on the embedded model, in turns",
        numbers=(("rounds", 5, "measured rounds of each"),),
    ),
    "all": _Benchmark(
        run=everything.bench_all,
        summary="all benchmarks beside a peer, each in a process of its own (hours)",
        numbers=(),
        add_more=_add_files,
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
    "sample": _Benchmark(
        run=sample.bench_sample,
        summary="tokens per second on the embedded model beside transformers' generate and continuous batching",
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
