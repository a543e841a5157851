"""The growing file: what its state counts is kept, what lies beyond is cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from align.candidates.store import GrowingFile, read_summary, state_file
from align.errors import UserError


def state(file: Path) -> dict[str, Any]:
    return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))


def test_a_new_file_and_its_growth(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "c.jsonl"
    growing = GrowingFile(file, {"a": {"b": 1}}, {"left_out": 2})
    assert (growing.done, growing.counts, file.read_bytes()) == (0, {"left_out": 2}, b"")
    assert state(file) == {"settings": {"a": {"b": 1}}, "done": 0, "bytes": 0, "counts": {"left_out": 2}}
    growing.append([{"x": "é"}, {"x": 2}], done=3, counts={"left_out": 2, "rows": 2})
    first = '{"x": "é"}\n{"x": 2}\n'.encode()
    assert file.read_bytes() == first
    assert state(file) == {
        "settings": {"a": {"b": 1}},
        "done": 3,
        "bytes": len(first),
        "counts": {"left_out": 2, "rows": 2},
    }
    assert (growing.done, growing.counts) == (3, {"left_out": 2, "rows": 2})
    growing.append([], done=5, counts={"rows": 2})
    again = GrowingFile(file, {"a": {"b": 1}}, {"left_out": 7})
    assert (again.done, again.counts, file.read_bytes()) == (5, {"rows": 2}, first)
    again.append([{"x": 3}], done=6, counts={"rows": 3})
    assert file.read_bytes() == first + b'{"x": 3}\n'
    assert (state(file)["bytes"], state(file)["done"]) == (len(first) + 9, 6)


@pytest.mark.parametrize("beyond", [b"", b'{"x": 9}\n', b'{"x"', b"\n\n"])
def test_what_no_state_counts_is_cut_off(beyond: bytes, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    GrowingFile(file, {}, {}).append([{"x": 1}], done=1, counts={})
    with file.open("ab") as stream:
        stream.write(beyond)
    growing = GrowingFile(file, {}, {})
    assert file.read_bytes() == b'{"x": 1}\n'
    growing.append([{"x": 2}], done=2, counts={})
    assert file.read_bytes() == b'{"x": 1}\n{"x": 2}\n'


def test_a_kill_before_the_first_row_leaves_what_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state comes first: a file of rows without one would be refused."""
    file = tmp_path / "c.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            GrowingFile(file, {"a": 1}, {})
    assert GrowingFile(file, {"a": 1}, {}).done == 0


def test_what_cannot_be_continued(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    GrowingFile(file, {"a": 1, "b": {"c": 2}}, {}).append([{"x": 1}], done=1, counts={})
    before = file.read_bytes(), state(file)
    with pytest.raises(UserError, match=r"b\.c is 2 in the run and 3 now"):
        GrowingFile(file, {"a": 1, "b": {"c": 3}}, {})
    assert (file.read_bytes(), state(file)) == before
    file.write_bytes(b'{"x": 1}')
    with pytest.raises(UserError, match=r"c\.jsonl was cut short from outside; remove it and c\.json\."):
        GrowingFile(file, {"a": 1, "b": {"c": 2}}, {})
    for name in ("c.json", "c", "c.jsonl.gz"):
        with pytest.raises(UserError, match=r"name it NAME\.jsonl\."):
            GrowingFile(tmp_path / name, {}, {})
    assert state_file(tmp_path / "a.b.jsonl") == tmp_path / "a.b.json"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\udcff"])
def test_a_damaged_state_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("{}\n")
    (tmp_path / "c.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"c\.json is damaged; remove it and .*c\.jsonl, which are then made anew"):
        GrowingFile(tmp_path / "c.jsonl", {}, {})


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"c\.jsonl cannot be written \(.+\); choose another place\."):
        GrowingFile(tmp_path / "file" / "c.jsonl", {}, {})
    growing = GrowingFile(tmp_path / "c.jsonl", {}, {})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"\(No space left on device\); earlier rows are kept; free space and continue"):
        growing.append([{"x": 1}], done=1, counts={})
    monkeypatch.undo()
    assert state(tmp_path / "c.jsonl")["done"] == 0
    assert GrowingFile(tmp_path / "c.jsonl", {}, {}).done == 0


def test_what_is_no_file_of_candidates_has_no_summary(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text('[{"prompt": "a"}]')
    (tmp_path / "broken.json").write_text("{")
    for name in ("pairs.json", "pairs.jsonl", "broken.jsonl", "absent.jsonl", "world"):
        assert read_summary(tmp_path / name) is None


def test_rows_are_on_disk_before_the_state_that_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, flushed = GrowingFile(tmp_path / "c.jsonl", {}, {}), list[str]()
    fsync = os.fsync

    def flushing(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    growing.append([{"a": 1}], done=1, counts={})
    assert flushed == ["c.jsonl", ".partial-c.json"]
