"""The cache of examples: computed once by however many processes, and again where its file is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets.config
import pyarrow as pa
import pytest

from align.data import Preferences, examples
from align.data.examples import tokenize
from align.errors import UserError
from tests.align.data.conftest import Pair


def cached_files() -> list[Path]:
    return sorted((Path(datasets.config.HF_DATASETS_CACHE) / "align").glob("*"))


def test_computed_once(chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(0), pair(1, prompt="Z" * 99), pair(2, chosen="Y" * 99)]
    first = tokenize(Preferences.from_rows(rows), chatml, max_length=90)
    monkeypatch.setattr(examples, "Tokenization", None)  # nothing is tokenised a second time
    second = tokenize(Preferences.from_rows(rows), chatml, max_length=90)
    assert [path.name for path in cached_files()] == [f"{first.fingerprint}.arrow"]
    assert list(first) == list(second)
    assert first.report == second.report
    assert first.report.left_out == {"prompt longer than max_length": 1}
    assert first.report.noted
    with pytest.raises(UserError, match="1 prompts leave no room for a response within 90 tokens"):
        tokenize(Preferences.from_rows(rows, too_long="error"), chatml, max_length=90)


WORKER = """
import sys
import datasets.config
from transformers import PreTrainedTokenizerFast
from align.data import Preferences, tokenize
datasets.disable_progress_bars()
preferences = Preferences.load(sys.argv[1])
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
tokenized = tokenize(preferences, tokenizer, max_length=200)
print(tokenized.fingerprint, sum(sum(map(sum, e.responses)) for e in tokenized), tokenized.lengths.sum())
"""


def test_several_ranks_at_the_same_time(chatml: Any, pair: Pair, jsonl: Callable[..., Path], tmp_path: Path) -> None:
    """They start together with an empty cache and different hash seeds, and all get the same; one file stays."""
    path = jsonl([pair(number) for number in range(3000)])
    chatml.save_pretrained(tmp_path / "tokenizer")
    cache = tmp_path / "cache"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(tmp_path / "tokenizer")],
            env=os.environ | {"HF_DATASETS_CACHE": str(cache), "PYTHONHASHSEED": str(seed), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = {worker.communicate("\n")[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0]
    tokenized = tokenize(Preferences.load(path), chatml, max_length=200)
    total = sum(sum(map(sum, example.responses)) for example in tokenized)
    assert outputs == {f"{tokenized.fingerprint} {total} {tokenized.lengths.sum()}\n"}
    assert [file.name for file in cached_files()] == [f"{tokenized.fingerprint}.arrow"]


@pytest.mark.parametrize("damage", [b"", b"not an arrow file", None])
def test_damaged_cache_file_is_computed_again(damage: bytes | None, chatml: Any, pair: Pair) -> None:
    preferences = Preferences.from_rows([pair(number) for number in range(50)])
    first = list(tokenize(preferences, chatml, max_length=100))
    (file,) = cached_files()
    content = file.read_bytes()
    file.unlink()  # the open memory map keeps the old bytes
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert list(tokenize(preferences, chatml, max_length=100)) == first
    assert file.read_bytes() == content


def test_cache_file_cut_between_batches_is_computed_again(chatml: Any, pair: Pair) -> None:
    """Such a file is a valid Arrow stream, only too short."""
    preferences = Preferences.from_rows([pair(number) for number in range(1500)])
    tokenize(preferences, chatml, max_length=100)
    (file,) = cached_files()
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        batch, schema = stream.read_next_batch(), stream.schema
    assert batch.num_rows < 1500
    file.unlink()
    with pa.ipc.new_stream(str(file), schema) as writer:
        writer.write_batch(batch)
    assert len(tokenize(preferences, chatml, max_length=100)) == 1500


def test_cache_that_cannot_be_written(chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    assert len(tokenize(Preferences.from_rows([pair(0)]), chatml, max_length=100)) == 1
