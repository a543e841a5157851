"""Benchmarks: this toolkit beside its peers, on the same data.

::

    python scripts/bench.py dpo        # an optimiser step of DPO beside TRL's DPOTrainer
    python scripts/bench.py ppo        # a step of RLOO and of PPO beside TRL's RLOOTrainer and GRPOTrainer
    python scripts/bench.py cost       # RRHF, SLiC-HF, RFT and DPO in relation to PPO: time and memory
    python scripts/bench.py memory     # PPO with its roles on one base, and with a full copy for each
    python scripts/bench.py sampling   # tokens per second beside transformers' generate
    python scripts/bench.py sentiment  # every method on a small model of stories: reward against KL
    python scripts/bench.py paths      # RFT on arithmetic: accuracy against distinct paths per question
    python scripts/bench.py dpo --json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import cost, dpo, online, paths, sampling, sentiment

_SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = _SHARED / "data/hh-rlhf-harmless-test/test.jsonl.gz"
_STORIES: tuple[tuple[str, Path, str], ...] = (
    ("model", _SHARED / "models/stories260K", "small model of stories"),
    ("judge", _SHARED / "models/babyllama-tok361", "model whose perplexity is reported"),
    ("stories", _SHARED / "data/tinystories-sample/train_head_2MiB.txt", "text with <|endoftext|> between stories"),
    ("lexicon", _SHARED / "data/vader-lexicon/vader_lexicon.txt", "words and their valence"),
)
_MODEL = (
    ("hidden", 512, "hidden size of the model"),
    ("layers", 8, "layers of the model"),
    ("vocabulary", 16384, "tokens of the vocabulary"),
    ("rank", 16, "rank of the adapters"),
    ("tokens-per-microbatch", 8192, "budget of our micro-batches"),
)
Number = tuple[str, int, str]
"""Name, default and meaning of an option."""
_ALL = (
    ("threads", os.cpu_count() or 1, "threads of PyTorch"),
    ("seed", 0, "of weights, choice and order of the data"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark named on the command line and print what it measured."""
    options = _parser().parse_args(arguments)
    if getattr(options, "data", None) == DATA and not DATA.is_file():
        sys.exit(f"bench.py: the HH pairs are not at {DATA}; give a file of pairs with --data.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from align.errors import UserError

    try:
        options.benchmark(options)
    except UserError as error:
        sys.exit(f"bench.py: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure this toolkit beside its peers.")
    benchmarks = parser.add_subparsers(required=True, metavar="benchmark")

    def add(
        name: str, benchmark: Callable[[argparse.Namespace], None], words: str, *numbers: tuple[str, int, str]
    ) -> argparse.ArgumentParser:
        one = benchmarks.add_parser(
            name, help=words, description=words, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        one.set_defaults(benchmark=benchmark)
        one.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if benchmark not in (sampling.bench_sampling, sentiment.bench_sentiment, paths.bench_paths):
            one.add_argument("--data", type=Path, default=DATA, help="file of preference pairs")
        for option, default, meaning in (*numbers, *_ALL):
            one.add_argument(f"--{option}", type=int, default=default, help=meaning)
        return one

    add(
        "dpo",
        dpo.bench_dpo,
        "one optimiser step of DPO beside TRL's DPOTrainer, in turns, on a random LLaMA with LoRA",
        ("steps", 10, "measured steps of each"),
        ("warmup", 2, "steps before the measured ones"),
        ("pairs", 8, "pairs per step"),
        ("max-length", 1024, "tokens of prompt and response together"),
        *_MODEL,
    )
    rollout = _rollout(steps=5, prompts=8, responses=4, tokens=48, longest=256)
    add(
        "ppo",
        online.bench_ppo,
        "a roll-out with its update by RLOO and PPO beside TRL's RLOOTrainer and GRPOTrainer, in turns, each in its "
        "own process, on a random LLaMA with LoRA",
        *rollout,
        *_MODEL,
    )
    add(
        "cost",
        cost.bench_cost,
        "drawing candidates and a step of RRHF, SLiC-HF, RFT and DPO on them in relation to PPO, in turns, each in its "
        "own process, on a random LLaMA with LoRA",
        *rollout,
        *_MODEL,
    )
    larger = tuple((name, {"hidden": 1024, "layers": 16}.get(name, default), words) for name, default, words in _MODEL)
    add(
        "memory",
        online.bench_memory,
        "peak memory of PPO with its roles as adapters on one base, and with a full copy of the model for each",
        *_rollout(steps=1, prompts=2, responses=2, tokens=8, longest=64),
        *larger,
    )
    add(
        "sampling",
        sampling.bench_sampling,
        "tokens per second of the embedded model beside transformers' generate, in turns",
        ("rounds", 5, "measured rounds of each"),
        ("prompts", 64, "prompts"),
        ("responses", 4, "responses per prompt"),
        ("tokens", 64, "longest response"),
    )
    sentiments = add(
        "sentiment",
        sentiment.bench_sentiment,
        "the methods trained to continue stories in good spirits: reward against KL, perplexity and time",
        ("prompts", 1024, "beginnings of stories to train on"),
        ("rank", 16, "rank of the adapters"),
    )
    for name, path, meaning in _STORIES:
        sentiments.add_argument(f"--{name}", type=Path, default=path, help=meaning)
    sentiments.add_argument("--output", type=Path, default=Path("runs/sentiment"), help="folder of runs and chart")
    sentiments.add_argument("--methods", nargs="+", choices=sentiment.METHODS, default=sentiment.METHODS)
    several = add(
        "paths",
        paths.bench_paths,
        "rejection-sampling fine-tuning on arithmetic that can be solved in several orders",
        ("questions", 120, "questions to train on"),
        ("heldout", 1000, "questions to be judged on"),
        ("epochs", 12, "of each training"),
        ("pool", 3, "models that draw in the last RFT"),
        ("duplicates", 30, "samples drawn for each question where all right ones are kept"),
    )
    several.add_argument("--samples", type=int, nargs="+", default=[1, 3, 10, 30, 100], help="drawn for each question")
    several.add_argument("--output", type=Path, default=Path("runs/paths"), help="folder of runs and chart")
    return parser


def _rollout(*, steps: int, prompts: int, responses: int, tokens: int, longest: int) -> tuple[Number, ...]:
    return (
        ("steps", steps, "measured steps of each"),
        ("warmup", 1, "steps before the measured ones"),
        ("prompts", prompts, "prompts per step"),
        ("responses", responses, "responses per prompt"),
        ("tokens", tokens, "tokens of each response"),
        ("max-prompt", longest, "tokens of the longest prompt"),
    )


if __name__ == "__main__":
    main()
