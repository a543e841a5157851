"""Examples made by several processes, which are those that one makes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets.config
import pytest

from align.data import Preferences, tokenization, tokenize
from align.data.tokenization import Tokenization
from align.errors import UserError
from tests.align.data.conftest import Pair


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Chunks of two examples for a number of processes, with an empty cache."""

    def choose(number: int) -> None:
        monkeypatch.setattr(tokenization, "_WORTH_PROCESSES", 1)
        monkeypatch.setattr(tokenization, "_CHUNK", 2)
        monkeypatch.setattr(tokenization, "core_count", lambda: number)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / f"cache{number}")

    return choose


def rows(pair: Pair, count: int) -> Preferences:
    """Two pairs of each prompt, and one whose prompt is too long."""
    made = [pair(number // 2, chosen=f"It is {number}.") for number in range(count)]
    return Preferences.from_rows([*made, pair(9, prompt="Why? " * 60)])


@pytest.mark.parametrize("unit", ["pair", "ranking", "prompt"])
def test_processes_make_the_file_that_one_makes(
    unit: Any, cores: Callable[[int], None], chatml: Any, pair: Pair
) -> None:
    files: list[bytes] = []
    for number in (1, 2):
        cores(number)
        made = tokenize(rows(pair, 7), chatml, max_length=60, max_rejected=1.0, unit=unit)
        files.append(Path(made.table.cache_files[0]["filename"]).read_bytes())
    assert files[0] == files[1]
    assert [file.suffix for file in Path(made.table.cache_files[0]["filename"]).parent.iterdir()] == [".arrow"]


def test_a_mistake_of_the_user_is_the_same_sentence(
    cores: Callable[[int], None], pad_is_eos: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    cores(2)
    turn = {"role": "user", "content": "Hi"}
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        tokenize(Preferences.from_rows([pair(n, prompt=[turn]) for n in range(4)]), pad_is_eos, max_length=60)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_a_killed_process_is_a_sentence(
    cores: Callable[[int], None], chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cores(2)
    monkeypatch.setattr(Tokenization, "batch", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="ended from outside, as happens when memory runs out; free some memory"):
        tokenize(rows(pair, 3), chatml, max_length=60)
    assert list((tmp_path / "cache2" / "align").iterdir()) == []


def test_without_a_cache_the_table_is_in_memory(chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tokenize(rows(pair, 3), chatml, max_length=60)
    monkeypatch.setattr("align.data.examples.cache_folder", lambda: None)
    held = tokenize(rows(pair, 3), chatml, max_length=60)
    assert held.table.cache_files == []
    assert list(held) == list(kept)
    assert held.table.features == kept.table.features
