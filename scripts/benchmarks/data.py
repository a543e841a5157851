"""Reading, checking and tokenising preference data, beside TRL's own preparation of the same rows, in turns.

Both sides read one JSONL file of conversations without a prompt's column (HH-RLHF as messages; every prompt made
different by a number) and end with the ids of prompt, chosen and rejected. Caches are empty in every round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions


def bench_data(options: argparse.Namespace) -> None:
    """Measure both sides in turns, and print the result."""
    import datasets
    import datasets.config

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        file = _write_rows(Path(folder) / "pairs.jsonl", options)
        seconds: dict[str, list[float]] = {"read": [], "tokenize": [], "ours": [], "trl": []}
        for number in range(options.rounds):
            sides: list[Callable[[], None]] = [
                lambda: _ours(file, options.tokenizer, seconds),
                lambda: _trl(file, options.tokenizer, options.processes, seconds),
            ]
            for side in sides if number % 2 else sides[::-1]:
                datasets.config.HF_DATASETS_CACHE = Path(tempfile.mkdtemp(dir=folder))
                side()
    result = {
        "benchmark": "data",
        "settings": {**settings_of(options), "versions": versions()},
        "rows_per_second_read": spread([options.rows / s for s in seconds["read"]]),
        "pairs_per_second_tokenized": spread([options.rows / s for s in seconds["tokenize"]]),
        "pairs_per_second_ours": spread([options.rows / s for s in seconds["ours"]]),
        "pairs_per_second_trl": spread([options.rows / s for s in seconds["trl"]]),
        "ratios": {"align/TRL": {"seconds": ratios(seconds["ours"], seconds["trl"])}},
    }
    report(result, options, _print)


def _write_rows(file: Path, options: argparse.Namespace) -> Path:
    from align.data import Preferences

    rows = [row for row in Preferences.load(options.data, max_rejected=1.0) if row["rejected"]]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(options.rows):
            row = rows[number % len(rows)]
            prompt = [dict(turn) for turn in row["prompt"]]
            prompt[0]["content"] = f"{number}. {prompt[0]['content']}"
            sides = {side: [*prompt, *row[side]] for side in ("chosen", "rejected")}
            stream.write(json.dumps(sides, ensure_ascii=False) + "\n")
    return file


def _tokenizer(name: str) -> Any:
    from align.model.loading import load_tokenizer
    from align.settings.config import ModelConfig

    return load_tokenizer(ModelConfig(name=name))


def _ours(file: Path, tokenizer: str, seconds: dict[str, list[float]]) -> None:
    from align.data import Preferences, tokenize

    loaded = _tokenizer(tokenizer)
    began = time.perf_counter()
    pairs = Preferences.load(file, max_rejected=1.0)
    read = time.perf_counter()
    tokenize(pairs, loaded, max_length=1024, unit="pair", max_rejected=1.0)
    seconds["read"].append(read - began)
    done = time.perf_counter()
    seconds["tokenize"].append(done - read)
    seconds["ours"].append(done - began)


def _trl(file: Path, tokenizer: str, processes: int, seconds: dict[str, list[float]]) -> None:
    import datasets
    from trl import DPOTrainer

    loaded = _tokenizer(tokenizer)
    settings: Any = SimpleNamespace(dataset_num_proc=processes, max_length=1024, truncation_mode="keep_start")
    trainer: Any = SimpleNamespace(_tokenizer=loaded)
    began = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=str(file), split="train")
    DPOTrainer._prepare_dataset(trainer, rows, loaded, settings, "train")  # pyright: ignore[reportPrivateUsage]
    seconds["trl"].append(time.perf_counter() - began)


def _print(result: dict[str, Any]) -> None:
    settings, ratio = result["settings"], result["ratios"]["align/TRL"]["seconds"]
    for name in (name for name in result if "_per_second_" in name):
        print(f"{name.replace('_', ' ')}: {result[name]['median']:,.0f} ({quartiles(result[name], 0)})")
    print(
        f"Of TRL's time: {ratio['median']:.3f} ({quartiles(ratio)}, {settings['rounds']} rounds of "
        f"{settings['rows']:,} rows)"
    )
