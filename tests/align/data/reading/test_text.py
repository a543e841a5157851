"""Text files: CSV and TSV, JSON in its shapes, and the place of each row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.curation.checks import check
from align.data import Preferences
from align.data.reading import read_blocks
from align.errors import UserError


def rows_of(path: Path) -> list[tuple[str, Any]]:
    return [(row.place, row.problem or row.value) for block in read_blocks(path, "train") for row in block]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


ROW = {"prompt": "q", "chosen": "a"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,chosen\nq,a\n"),
        ("a.csv", "prompt;chosen\nq;a"),
        ("a.tsv", "prompt\tchosen\r\nq\ta\r\n"),
        ("a.csv", "\ufeffprompt,chosen\r\nq,a\r\n\r\n"),
        ("a.csv", '"prompt","chosen"\n"q","a"\n'),
        ("a.csv", "prompt|chosen\nq|a\n"),
        ("a.csv", ",prompt,chosen\n0,q,a\n"),
    ],
)
def test_tables_of_cells(name: str, content: str, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / name, content)) == [(f"{name}:2", ROW)]


def test_quotes_line_breaks_and_missing_cells(tmp_path: Path) -> None:
    content = (
        'prompt,chosen\n"He said ""hi"",\nthen left",a\nq,\nq\n" q ","[{""role"": ""user"", ""content"": ""x""}]"\n'
    )
    content += "q,\"[{'role': 'user', 'content': None}]\"\nq,[1] is a list\n"
    assert rows_of(written(tmp_path / "a.csv", content)) == [
        ("a.csv:2", {"prompt": 'He said "hi",\nthen left', "chosen": "a"}),
        ("a.csv:4", {"prompt": "q", "chosen": None}),
        ("a.csv:5", "1 cells under 2 names"),
        ("a.csv:6", {"prompt": " q ", "chosen": [{"role": "user", "content": "x"}]}),
        ("a.csv:7", {"prompt": "q", "chosen": [{"role": "user", "content": None}]}),
        ("a.csv:8", {"prompt": "q", "chosen": "[1] is a list"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"prompt,prompt\nq,a\n", "the first line must name every column once"),
        (b"prompt,\nq,a\n", "the first line must name every column once"),
        (b"How do I boil an egg?,Four minutes of boiling water.,no\n", "the first line holds data, not names"),
        (b",prompt,chosen\n0,q,a\nx,q,a\n", "a.csv:3: the first column has no name and holds no row numbers"),
        (b",prompt,chosen\n0,q,a\n0,q,a\n", "a.csv:3: the first column has no name and holds no row numbers"),
        (b"prompt,chosen\rq,a\rq,b\r", "the lines end in carriage returns alone"),
        (b'{"prompt": "q"}\n{"prompt": "r"}\n', "the file is JSON, not a table of cells; rename it"),
        (b'[\n{"prompt": "q"}\n]\n', "the file is JSON, not a table of cells; rename it"),
        ("prompt,chosen\nq,a\n".encode("utf-16-le"), "the text is UTF-16"),
        ("prompt,chosen\nq,a\n".encode("utf-16-be"), "the text is UTF-16"),
        ("prompt,chosen\nq,a\n".encode("utf-16"), "the text is UTF-16"),
        (b'prompt,chosen\n"q,a\n', "not a table of cells"),
        (b"prompt,chosen\n" + b"q,a\n" * 5000 + b"q,\xff\n", r"byte 20016 is not UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    """14 bytes of names, 5,000 lines of 4 bytes, and the third byte of the next."""
    with pytest.raises(UserError, match=message):
        rows_of(written(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ('{"prompt": "q", "chosen": "a"}', [1]),
        ('{"data": [\n{"prompt": "q", "chosen": "a"},\n{"prompt": "q", "chosen": "a"}]}', [2, 3]),
        ('{\n "prompt": "q",\n "chosen": "a"\n}\n', [1]),
        ('{\n"prompt": "q", "chosen": "a"}\n{\n"prompt": "q", "chosen": "a"}', [1, 3]),
        ('[\n{"prompt": "q", "chosen": "a"},\n\n{"prompt": "q", "chosen": "a"}]', [2, 4]),
        (
            '{"version": 1,\n"rows":\n[{"prompt": "q", "chosen": "a"},\n{"prompt": "q", "chosen": "a"}], "more": []}',
            [3, 4],
        ),
        ('{"prompt": "q", "chosen": "a"}\r\n\r\n{"prompt": "q", "chosen": "a"}\r\n', [1, 3]),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_shapes_of_json(content: str, places: list[int], name: str, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / name, content)) == [(f"{name}:{place}", ROW) for place in places]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data": [ROW], "more": [ROW]}, r"several lists of rows \(data, more\); write one file for each"),
        ({"rows": [ROW], "rejected_rows": [ROW]}, r"several lists of rows \(rows, rejected_rows\)"),
        (
            {"data": [ROW], "system_prompt": "Be kind."},
            r"system_prompt stands beside the rows \(data\); write it into each",
        ),
    ],
)
def test_what_stands_beside_a_list_of_rows(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        rows_of(written(tmp_path / "a.json", json.dumps(content)))
    del content[list(content)[1]]
    assert len(rows_of(written(tmp_path / "a.json", json.dumps({"version": "1", **content})))) == 1


def test_an_object_of_columns_is_a_table(tmp_path: Path) -> None:
    found = rows_of(written(tmp_path / "a.json", json.dumps({name: [value, value] for name, value in ROW.items()})))
    assert found == [("a.json: row 1", ROW), ("a.json: row 2", ROW)]
    one = {
        side: [{"role": "user", "content": "q"}, {"role": "assistant", "content": side}]
        for side in ("chosen", "rejected")
    }
    assert rows_of(written(tmp_path / "b.json", json.dumps(one))) == [("b.json:1", one)]


def test_several_objects_in_one_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.json:1: several JSON objects stand in one line; write a line for each"):
        rows_of(written(tmp_path / "a.json", json.dumps(ROW) * 2))


def test_several_lists_in_one_object_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"several lists of rows \(train, test\)"):
        rows_of(written(tmp_path / "a.json", '{"train": [{"prompt": "q"}], "test": [{"prompt": "r"}]}'))


def test_an_index_of_pandas_has_gaps_where_rows_were_left_out(tmp_path: Path) -> None:
    content = ",prompt,chosen\n0,q,a\n7,q,b\n"
    rows = [row for _, row in rows_of(written(tmp_path / "a.csv", content))]
    assert rows == [ROW, {"prompt": "q", "chosen": "b"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt,chosen\nq,a\n", "the file is no JSON; if it is a table of cells, rename it to end in .csv"),
        (b"{'prompt': 'q'}\n{'prompt': 'r'}\n", "the rows are Python dictionaries"),
        (b"[{'prompt': 'q'}]\n", "the rows are Python dictionaries"),
        ('{"prompt": "q"}\n'.encode("utf-16-le"), "the text is UTF-16"),
    ],
)
def test_files_that_are_not_json(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        rows_of(written(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ('[{"a": 1}, {"a": 2}]', ["a.json: row 1", "a.json: row 2"]),
        ('\n[ {"a": 1},{"a": 2} ]\n', ["a.json: row 1", "a.json: row 2"]),
        ('[\n{"a": 1}, {"a": 2}\n]\n', ["a.json: row 1", "a.json: row 2"]),
        ('{"version": 1, "data": [{"a": 1}, {"a": 2}]}', ["a.json: row 1", "a.json: row 2"]),
        ('{"version": 1,\n "data": [{"a": 1}, {"a": 2}]\n}\n', ["a.json: row 1", "a.json: row 2"]),
        ('[{"a": 1},\n{"a": 2}]', ["a.json:1", "a.json:2"]),
        ('{"data": [{"a": 1},\n{"a": 2}]}', ["a.json:1", "a.json:2"]),
    ],
)
def test_rows_of_one_line_have_their_number_for_a_place(content: str, places: list[str], tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.json", content))
    assert rows == [(place, {"a": number}) for number, place in enumerate(places, 1)]


def test_the_place_in_one_line_is_in_the_report_and_in_refusals(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(20)]
    rows[16]["chosen"] = ""
    file = written(tmp_path / "a.json", json.dumps(rows))
    with pytest.raises(UserError, match=r"1 empty chosen \(a\.json: row 17\)"):
        Preferences.load(file)
    data = Preferences.load(file, max_rejected=1)
    assert data.report.examples == {"empty chosen": ("a.json: row 17: empty chosen",)}
    found = next(one for one in check(data) if one.sentence == "rejected: empty chosen")
    assert list(found.places) == ["a.json: row 17"]
