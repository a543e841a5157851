"""Files: compressed ones of each kind, damaged or out of all proportion; Arrow; several sources."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from align.data import Preferences
from align.data.reading import RawRow, compression, read_blocks
from align.errors import UserError

LINES = "".join(f'{{"prompt": "{random.Random(i).getrandbits(256):x}"}}\n' for i in range(400)).encode()


def read_rows(source: str | Path) -> list[RawRow]:
    return [row for block in read_blocks(source, "train") for row in block]


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "zst": zstd, "xz": lzma.compress, "bz2": bz2.compress,
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("named", [True, False])
def test_the_content_decides(kind: str, named: bool, tmp_path: Path) -> None:
    path = tmp_path / (f"a.jsonl.{kind}" if named else "a.jsonl")
    path.write_bytes(PACKERS[kind](LINES))
    rows = read_rows(path)
    assert (len(rows), rows[-1].place) == (400, f"{path.name}:400")


@pytest.mark.parametrize("kind", PACKERS)
def test_a_file_that_is_cut_off_is_named(kind: str, tmp_path: Path) -> None:
    packed = PACKERS[kind](LINES)
    path = tmp_path / "a.jsonl"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"a\.jsonl: .*(damaged|cut off)|cut off"):
        read_rows(path)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"7z\xbc\xaf", b"Rar!"])
def test_archives_are_to_be_unpacked(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(start + b"x" * 50)
    with pytest.raises(UserError, match="unpack it"):
        read_rows(tmp_path / "a.jsonl")


def test_a_bomb_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_BOMB", 2**20)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"prompt": "' + b"a" * 2**22 + b'"}\n'))
    with pytest.raises(UserError, match="more than 500 times its own size"):
        read_rows(tmp_path / "a.jsonl")


@pytest.mark.parametrize("write", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_as_a_stream_and_as_a_file(write: Callable[..., pa.RecordBatchWriter], tmp_path: Path) -> None:
    table = pa.table({"prompt": [f"q{i}" for i in range(3)], "chosen": ["a", None, "c"]})
    with write(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    rows = [(row.place, row.value) for row in read_rows(tmp_path / "a.arrow")]
    assert rows == [(f"a.arrow:{i}", value) for i, value in enumerate(table.to_pylist(), 1)]
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:40])
    with pytest.raises(UserError, match="not a readable Arrow file"):
        read_rows(tmp_path / "b.arrow")


def test_a_list_of_sources_and_a_pattern(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_bytes(LINES[: LINES.index(b"\n") + 1])
    assert [row.place for row in read_rows(str(tmp_path / "*.jsonl"))] == ["a.jsonl:1", "b.jsonl:1"]
    both = Preferences.load([tmp_path / "b.jsonl", tmp_path / "a.jsonl"])
    assert list(both.dataset["place"]) == ["b.jsonl:1", "a.jsonl:1"]
    assert (both.report.read, both.report.kept) == (2, 2)
    with pytest.raises(UserError, match="an empty list"):
        Preferences.load([])
    with pytest.raises(UserError, match="no file fits this pattern"):
        read_rows(str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("member", "said"), [("xl/workbook.xml", "Excel workbook; save its sheet as CSV"), ("a.csv", "zip archive")]
)
def test_a_workbook_under_the_name_of_a_table(member: str, said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(UserError, match=said):
        list(read_blocks(tmp_path / "a.csv", "train"))
