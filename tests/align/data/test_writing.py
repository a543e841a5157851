"""Rows written as JSON lines: whole or not there, and gone on with where a process was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences, writing
from align.data.writing import append_rows, write_jsonl, write_rows


@pytest.fixture
def data(pair_rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Preferences:
    monkeypatch.setattr(writing, "CHUNK_ROWS", 15)  # of 40 rows
    return Preferences.from_rows(pair_rows)


def stopped_at(record: int, data: Preferences, file: Path) -> None:
    """Write, and stop like a killed process before the record with this number is written."""
    write, numbers = writing.write_json, iter(range(1, 100))

    def dying_write(*arguments: Any) -> None:
        if next(numbers) == record:
            raise KeyboardInterrupt
        write(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "write_json", dying_write)
        with pytest.raises(KeyboardInterrupt):
            write_rows(data, file)


@pytest.mark.parametrize("record", [1, 2, 3])
def test_a_stopped_file_ends_as_one_that_was_not_stopped(record: int, data: Preferences, tmp_path: Path) -> None:
    write_rows(data, tmp_path / "whole.jsonl")
    stopped_at(record, data, tmp_path / "stopped.jsonl")
    assert not (tmp_path / "stopped.jsonl").exists()
    asked: list[int] = []

    def tables(start: int) -> Iterable[Any]:
        asked.append(start)
        rows: Any = data.dataset.with_format("arrow")
        return (rows[i : i + 15] for i in range(start, len(rows), 15))

    names = writing.columns_with_values(data.dataset)
    write_jsonl(tmp_path / "stopped.jsonl", tables, names, {"rows": data.fingerprint})
    assert asked == [15 * (record - 1)]
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["stopped.jsonl", "whole.jsonl"]


def test_other_rows_begin_anew(data: Preferences, tmp_path: Path) -> None:
    stopped_at(3, data, tmp_path / "a.jsonl")
    other = data.select(range(39, -1, -1))
    write_rows(other, tmp_path / "a.jsonl")
    assert list(Preferences.load(tmp_path / "a.jsonl").dataset["prompt"]) == list(other.dataset["prompt"])


def test_every_row_has_the_columns_that_any_has(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": None}, {"prompt": "q", "chosen": "b", "rejected": "c"}]
    mixed = Preferences.from_rows([*rows, {"prompt": "r", "chosen": None, "rejected": "d", "source": "s"}])
    write_rows(mixed, tmp_path / "a.jsonl")
    again = Preferences.load(tmp_path / "a.jsonl")
    assert again.fingerprint == mixed.fingerprint
    assert '"weight"' not in (tmp_path / "a.jsonl").read_text()


def test_rows_are_added_to_the_end(tmp_path: Path) -> None:
    """Also below a last line that an editor left open."""
    file = tmp_path / "pairs.jsonl"
    for number in range(3):
        append_rows(Preferences.from_rows([{"prompt": f"é {number}", "chosen": "b", "rejected": "c"}]), file)
        file.write_text(file.read_text(encoding="utf-8").removesuffix("\n"), encoding="utf-8")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [(f"é {i}", "b", "c") for i in range(3)]
    assert Preferences.load(file).report.kept == 3


def test_saved_rows_are_read_again(data: Preferences, tmp_path: Path) -> None:
    messages = Preferences.from_rows(
        [{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello"}]}]
    )
    for name, rows in (("text", data), ("messages", messages)):
        write_rows(rows, tmp_path / f"{name}.jsonl")
        read = Preferences.load(tmp_path / f"{name}.jsonl")
        assert [{**row, "place": ""} for row in read] == [{**row, "place": ""} for row in rows]
