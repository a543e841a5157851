from __future__ import annotations

from pathlib import Path

import pytest

from align.errors import UserError
from align.labelling.lines import Lines


def test_lines_are_read_back_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    lines = Lines(file)
    lines.append([{"a": "é\n\u2028"}, {"b": 1}])
    with file.open("ab") as stream:
        stream.write('{"c": "½'.encode()[:-1])
    again = Lines(file)
    assert again.rows == lines.rows == [{"a": "é\n\u2028"}, {"b": 1}]
    again.append([{"d": 2}])
    assert Lines(file).rows[2:] == [{"d": 2}]


def test_a_file_that_is_one_torn_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_bytes(b'{"a"')
    assert Lines(tmp_path / "file.jsonl").rows == []
    assert (tmp_path / "file.jsonl").read_bytes() == b""


@pytest.mark.parametrize("line", ["no", "[1]", ""])
def test_a_line_that_was_changed_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text(f"{{}}\n{line}\n{{}}\n")
    with pytest.raises(UserError, match=r"file\.jsonl:2 was changed from outside"):
        Lines(tmp_path / "file.jsonl")
