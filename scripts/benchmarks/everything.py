"""All benchmarks beside a peer, each in a process of its own, and what became slower since an earlier time."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.system.files import read_json, write_json
from benchmarks.measuring import quartiles

_BENCH = Path(__file__).resolve().parents[1] / "bench.py"

ALL = (
    *((name, "--peer", peer) for name in ("sft", "dpo", "kto", "reward") for peer in ("defaults", "best")),
    ("dpo", "--peer", "best", "--dtype", "bfloat16"),
    ("dpo", "--peer", "best", "--vocabulary", "128000"),
    *(("grpo", "--peer", peer) for peer in ("defaults", "best")),
    *((name,) for name in ("rrhf", "ppo", "methods", "sample", "startup", "data")),
)


def bench_all(options: argparse.Namespace) -> bool:
    """Run them all; returns whether none is slower than in the file to compare with."""
    before = read_results(options.against) if options.against is not None else {}
    results: list[dict[str, Any]] = []
    for words in ALL:
        results.append(_result(words, options))
        if options.output is not None:
            write_json(options.output, results)
    if options.json:
        print(json.dumps(results))
    found = list(slower(before, {result["name"]: result for result in results}))
    for sentence in found:
        print(sentence, file=sys.stderr)
    if before and not found:
        print(f"Nothing became slower than in {options.against}.", file=sys.stderr)
    return not found


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """Return the results in what ``all --output`` wrote, by name."""
    try:
        return {result["name"]: result for result in read_json(file)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"--against={file}: not a file that bench.py all --output wrote ({error}).") from error


def slower(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each ratio to a peer whose quartiles lie above those of before.

    Seconds of two times cannot be compared, for the machine may be another or busy; CPU time, where it was measured, is
    what other processes distort least.

    Raises:
        UserError: A benchmark of before has not been run now, or with other settings.
    """
    for name, old in before.items():
        new = now.get(name)
        if new is None or _settings(new) != _settings(old):
            raise UserError(f"{name!r} was measured with other settings than now, so nothing can be said of it.")
        for pair, ratio in old["ratios"].items():
            clock = "cpu_seconds" if "cpu_seconds" in ratio else "seconds"
            was, is_now = ratio[clock], new["ratios"][pair][clock]
            if is_now["q1"] > was["q3"]:
                yield (
                    f"{name}: {pair} was {was['median']:.3f} ({quartiles(was)}) in {clock.replace('_', ' ')}, "
                    f"and is {is_now['median']:.3f} ({quartiles(is_now)})."
                )


def _settings(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result["settings"].items() if name != "versions"}


def _result(words: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    name = " ".join(words)
    print(name, file=sys.stderr, flush=True)
    given = [f"--threads={options.threads}", f"--seed={options.seed}"]
    done = subprocess.run(
        [sys.executable, str(_BENCH), *words, *given, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
    return {"name": name, **json.loads(done.stdout.splitlines()[-1])}  # TRL speaks, too
