"""Sources: files, folders, hub names and the embedded data."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.data import Preferences
from align.data.reading import WORLD
from align.errors import UserError
from tests.align.data.conftest import Pair


@pytest.fixture
def rows(pair: Pair) -> list[dict[str, Any]]:
    return [pair(number) for number in range(5)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows))


def write_gzip(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))


def write_array(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS = [
    ("a.jsonl", write_jsonl),
    ("a.jsonl.gz", write_gzip),
    ("a.json", write_array),
    ("a.json", write_jsonl),
    ("a.parquet", write_parquet),
]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_every_file_type_gives_the_same_rows(name: str, write: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write(tmp_path / name, rows)
    loaded = Preferences.load(tmp_path / name)
    expected = Preferences.from_rows(rows)
    assert loaded.fingerprint == expected.fingerprint
    assert [row["prompt"] for row in loaded] == [row["prompt"] for row in expected]
    assert loaded[0]["place"] == f"{name}:{2 if write is write_array else 1}"


def test_lines_of_an_array_are_counted(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "a.json").write_text("\n[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")
    assert [row["place"] for row in Preferences.load(tmp_path / "a.json")] == [f"a.json:{n}" for n in range(2, 7)]


def test_folder_of_data_files_by_split(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "train-1.jsonl", rows[:2])
    write_parquet(tmp_path / "train-2.parquet", rows[2:4])
    (tmp_path / "test").mkdir()
    write_gzip(tmp_path / "test" / "0000.jsonl.gz", rows[4:])
    (tmp_path / "LICENSE").write_text("free")
    assert [row["place"] for row in Preferences.load(tmp_path)] == [
        "train-1.jsonl:1", "train-1.jsonl:2", "train-2.parquet:1", "train-2.parquet:2",
    ]  # fmt: skip
    assert len(Preferences.load(tmp_path, split="test")) == 1
    with pytest.raises(UserError, match=r"no split 'dev' \(found: test, train\).*data.split="):
        Preferences.load(tmp_path, split="dev")


def test_folder_saved_by_datasets(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    train, test = datasets.Dataset.from_list(rows[:3]), datasets.Dataset.from_list(rows[3:])
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "many")
    assert len(Preferences.load(tmp_path / "one")) == 3
    assert Preferences.load(tmp_path / "many", split="test")[0]["place"] == "many:1"
    with pytest.raises(UserError, match=r"no split 'dev' \(found: train, test\)"):
        Preferences.load(tmp_path / "many", split="dev")


def test_hub_name(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
    asked: list[tuple[str | None, ...]] = []

    def load_dataset(name: str, subset: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, subset, split, revision))
        if name.endswith("private"):
            raise datasets.exceptions.DatasetNotFoundError("no such dataset")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert Preferences.load("someone/pairs", split="test")[0]["place"] == "someone/pairs:1"
    assert len(Preferences.load("someone/pairs", subset="small", revision="v1"))
    assert asked == [("someone/pairs", None, "test", None), ("someone/pairs", "small", "train", "v1")]
    with pytest.raises(UserError, match=r"'someone/private' is no file and could not be loaded from the hub"):
        Preferences.load("someone/private")


def test_embedded_names(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """The embedded files may be compressed whatever their name says."""

    def asset(name: str) -> Path:
        write_gzip(tmp_path / name, [{"prompt": f"{name} {row['prompt']}"} for row in rows])
        return tmp_path / name

    monkeypatch.setitem(sys.modules, "align.world", SimpleNamespace(asset=asset))
    for name, file in WORLD.items():
        assert Preferences.load(name)[0]["prompt"][0]["content"] == f"{file} What is 0 + 1?"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/pairs.jsonl", "there is no such file or folder"),
        ("./nowhere/at/all", "there is no such file or folder"),
        ("world/helduot", 'Did you mean "world/heldout"'),
    ],
)
def test_missing_source(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preferences.load(source)


def test_mistyped_file_and_wrong_type(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(UserError, match=r'Did you mean "pairs\.jsonl"'):
        Preferences.load(tmp_path / "pair.jsonl")
    (tmp_path / "pairs.xlsx").write_text("a,b")
    with pytest.raises(UserError, match=r"data files end in \.jsonl"):
        Preferences.load(tmp_path / "pairs.xlsx")
    (tmp_path / "a.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        Preferences.load(tmp_path / "a.parquet")


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_max_rejected_is_a_fraction(fraction: float, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"data\.max_rejected="):
        Preferences.from_rows(rows, max_rejected=fraction)


def test_all_rows_rejected_is_an_error_whatever_the_threshold() -> None:
    with pytest.raises(UserError, match="1 of 1 rows rejected"):
        Preferences.from_rows([{"prompt": "a", "chosen": "", "rejected": "b"}], max_rejected=1.0)


def test_prompt_id_stands_for_one_prompt(pair: Pair) -> None:
    rows = [pair(0, prompt_id="p"), pair(0, prompt_id="p", chosen="One."), pair(1, prompt_id="p")]
    report = Preferences.from_rows(rows, max_rejected=0.5).report
    assert report.rejected == {"prompt_id stands for two prompts": 1}
    assert report.examples["prompt_id stands for two prompts"][0].startswith("rows:3")


def test_message_parts_are_joined_and_unread_fields_noted(pair: Pair) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 + 1?"}]
    rows = [pair(0, prompt=[{"role": "user", "content": parts, "mood": "good"}])]
    preferences = Preferences.from_rows(rows)
    assert preferences[0]["prompt"] == [{"role": "user", "content": "What is 1 + 1?"}]
    assert preferences.report.noted == {'message field "mood" is not read': 1}


def test_importing_is_light() -> None:
    """The command line checks its configuration before anything heavy is imported."""
    code = "import sys, align.data, align.data.encoding; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "pyarrow", "numpy"}.intersection(done.stdout.split())


def test_a_byte_that_is_not_utf_8_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    """Two lines of 16 bytes, and 12 before it in its own."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "\xff"}\n')
    with pytest.raises(UserError, match="byte 44 is not UTF-8"):
        Preferences.load(file)


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train.jsonl", "train"),
        ("pairs.jsonl", "train"),
        ("trainer.jsonl", "train"),
        ("testament.jsonl", "train"),
        ("TEST.jsonl", "test"),
        ("test-00000-of-00001.jsonl", "test"),
        ("test_prefs.jsonl", "test"),
        ("test/part.jsonl", "test"),
        ("test/train.jsonl", "train"),
        ("train/test.jsonl", "test"),
        ("train/deep/part.jsonl", "train"),
        ("my-test.jsonl", "train"),
        *((f"{name}.jsonl", name) for name in ("validation", "valid", "val", "dev", "eval", "heldout")),
    ],
)
def test_the_split_of_a_file_is_what_its_name_or_folder_begins_with(
    file: str, split: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(tmp_path / file, rows[:1])
    assert [row["place"] for row in Preferences.load(tmp_path, split=split)] == [f"{Path(file).name}:1"]
    other = "dev" if split != "dev" else "train"
    with pytest.raises(UserError, match=rf"no split '{other}' \(found: {split}\)"):
        Preferences.load(tmp_path, split=other)


def test_files_of_a_folder_are_read_in_the_order_of_their_paths(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for name in ("c.json", "a.jsonl", "b/z.jsonl", "b/y.jsonl.gz", "d.parquet", "e.json.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write = {".gz": write_gzip, ".parquet": write_parquet, ".json": write_array}.get(Path(name).suffix, write_jsonl)
        write(tmp_path / name, rows[:1])
    (tmp_path / "f.jsonl").mkdir()  # a folder is no file
    (tmp_path / "g.csv").write_text("a,b")
    places = [row["place"] for row in Preferences.load(str(tmp_path))]
    assert places == ["a.jsonl:1", "y.jsonl.gz:1", "z.jsonl:1", "c.json:2", "d.parquet:1", "e.json.gz:1"]


def test_a_folder_without_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'train' \(found: no file that ends in \.jsonl, \.ndjson, \.json"):
        Preferences.load(tmp_path)


def test_the_tilde_is_the_home_folder(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert len(Preferences.load("~/a.jsonl")) == 5


def test_the_first_bytes_decide_what_a_file_is(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Compressed or not, lines or an array, behind a byte order mark and blanks, whatever the name says."""
    array, lines = json.dumps(rows), "\n".join(json.dumps(row) for row in rows)
    expected = Preferences.from_rows(rows).fingerprint
    for number, content in enumerate((array, lines)):
        for lead in ("", "\ufeff", "\n \n", "\ufeff\n"):
            for name, packed in (("a.jsonl", False), ("a.json", False), ("b.jsonl", True), ("b.json.gz", True)):
                data = (lead + content).encode()
                file = tmp_path / f"{number}{name}"
                file.write_bytes(gzip.compress(data) if packed else data)
                assert Preferences.load(file).fingerprint == expected


def test_a_parquet_file_of_several_batches_counts_its_rows(pair: Pair, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [pair(number) for number in range(2001)])
    loaded = Preferences.load(tmp_path / "a.parquet")
    assert (len(loaded), loaded[0]["place"], loaded[2000]["place"]) == (2001, "a.parquet:1", "a.parquet:2001")


def test_broken_lines_in_the_middle_are_rejected_one_by_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Only the last line may say that the file is cut off."""
    good = [json.dumps(row) for row in rows]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(["{", good[0], '{"prompt"', "", "]", *good[1:]]))
    report = Preferences.load(file, max_rejected=0.5).report
    assert (report.read, report.kept, report.rejected) == (8, 5, {"invalid JSON": 3})
    assert report.examples["invalid JSON"] == tuple(f"a.jsonl:{line}: invalid JSON" for line in (1, 3, 5))
    assert [row["place"] for row in Preferences.load(file, max_rejected=0.5)] == [
        *("a.jsonl:2", "a.jsonl:6", "a.jsonl:7", "a.jsonl:8", "a.jsonl:9")
    ]


def test_a_row_behind_one_with_duplicate_keys_is_good(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    twice = '{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}'
    for name, text in (
        ("a.jsonl", "\n".join([twice, *(json.dumps(row) for row in rows)])),
        ("a.json", f"[{twice}, " + json.dumps(rows)[1:]),
    ):
        (tmp_path / name).write_text(text)
        report = Preferences.load(tmp_path / name, max_rejected=0.5).report
        assert (report.kept, report.rejected) == (5, {"duplicate keys": 1})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"prompt": "a"},\n{"prompt": "b"},\n', 3),
        ('[{"prompt": "a"},\n{"prompt": "b"', 2),
        ('[{"prompt": "a"}]\n{"prompt": "b"}', 1),
        ('[{"prompt": "a"}\n] x', 2),
    ],
)
def test_an_array_that_does_not_end_is_named_by_its_line(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"^a\.json:{line}: the JSON array is damaged or cut off here"):
        Preferences.load(tmp_path / "a.json")


def test_a_byte_of_an_array_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf[{"prompt": "\xc3\xa9\xff"}]')
    with pytest.raises(UserError, match=r"a\.json: byte 18 is not UTF-8"):
        Preferences.load(tmp_path / "a.json")


def test_the_place_of_a_byte_counts_bytes_and_not_letters(tmp_path: Path) -> None:
    """The first line has 19 bytes, two for each é, and 12 stand before the bad one in its own."""
    (tmp_path / "a.jsonl").write_bytes('{"prompt": "éé"}\n'.encode() + b'{"prompt": "\xff"}\n')
    with pytest.raises(UserError, match=r"byte 31 is not UTF-8"):
        Preferences.load(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["pairs", "a-b/c_d.e"])
def test_names_of_the_hub_are_asked_for_their_split(
    name: str, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load_dataset(*words: Any, **options: Any) -> datasets.Dataset:
        asked.append((words, options))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(Preferences.load(name)) == 5
    assert asked == [((name, None), {"split": "train", "revision": None})]
    for wrong in ("a/b/c", "a b", "owner/name.jsonl.gz", "world/test"):
        with pytest.raises(UserError, match="there is no such file or folder"):
            Preferences.load(wrong)
    assert len(asked) == 1


def test_a_folder_of_datasets_that_is_damaged_is_named(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    assert [row["place"] for row in Preferences.load(tmp_path / "one")] == [f"one:{n}" for n in range(1, 6)]
    (tmp_path / "one" / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"one: the folder cannot be read by datasets\.load_from_disk: "):
        Preferences.load(tmp_path / "one")
