"""Folders and patterns of files: one format for all of them, and their place in the cache of prepared data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import align.data.preferences as loading
from align.data import Preferences
from align.errors import UserError

PAIRS = [{"prompt": f"q{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(6)]
DEMONSTRATIONS = [{"prompt": f"q{i}", "chosen": f"a{i}"} for i in range(6)]
UNPAIRED = [{"prompt": f"q{i}", "completion": f"a{i}", "label": i % 2 == 0} for i in range(6)]
HH = [{side: f"\n\nHuman: q{i}\n\nAssistant: {side}" for side in ("chosen", "rejected")} for i in range(6)]
IMPLICIT = [{side: f"User: q{i}\nBot: {side}" for side in ("chosen", "rejected")} for i in range(6)]
MAPPED = [{"q": f"q{i}", "good": f"a{i}", "bad": f"b{i}"} for i in range(6)]


def votes(*labels: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"q{i}", "response_1": "one", "response_2": "two", "better": label} for i, label in enumerate(labels)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(*files: list[dict[str, Any]]) -> Path:
        path = tmp_path / "data"
        path.mkdir(exist_ok=True)
        for name, rows in zip("abc", files, strict=False):
            (path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return path

    return write


@pytest.mark.parametrize("as_pattern", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "one", "other"),
    [
        (PAIRS, DEMONSTRATIONS, "pairwise", "demonstration"),
        (DEMONSTRATIONS, PAIRS, "demonstration", "pairwise"),
        (UNPAIRED, PAIRS, "kto", "pairwise"),
        (HH, IMPLICIT, "hh-rlhf", "trl-implicit"),
        (IMPLICIT, HH, "trl-implicit", "hh-rlhf"),
        (PAIRS, [{"utterance": "t", "mood": "u"}], "pairwise", "in no format that is known, of mood"),
    ],
)
def test_files_of_two_formats_are_refused_by_name(
    first: Any, second: Any, one: str, other: str, as_pattern: bool, folder: Callable[..., Path]
) -> None:
    path = folder(first * 2, first, second)
    with pytest.raises(UserError) as refusal:
        Preferences.load(str(path / "*.jsonl") if as_pattern else path)
    words = str(refusal.value)
    assert f": {path / 'a.jsonl'} is {one}, but {path / 'c.jsonl'} is {other}" in words
    assert "data.train=[FILE,FILE]" in words
    assert "\n" not in words


def test_files_before_the_format_of_most_rows_are_found_too(folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"b\.jsonl is pairwise, but .*a\.jsonl is kto; read each"):
        Preferences.load(folder(UNPAIRED[:2], PAIRS))


def test_named_apart_each_is_read_in_its_own_format(folder: Callable[..., Path]) -> None:
    path = folder(PAIRS, UNPAIRED)
    assert Preferences.load([path / "a.jsonl", path / "b.jsonl"]).report.rule == "pairwise and kto"


def test_labels_of_another_counting_in_a_later_file_are_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"b\.jsonl is read as labelled, as the rest of .*, but `better` is 0 or 1"):
        Preferences.load(folder(votes(*[1, 2] * 600), votes(0, 1)))


def test_a_mapping_and_a_named_format_hold_for_every_file(folder: Callable[..., Path]) -> None:
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert len(Preferences.load(folder(MAPPED, MAPPED), columns=columns)) == 12
    with pytest.raises(UserError, match=r"a\.jsonl is pairwise, but .*b\.jsonl is in no format that is known"):
        Preferences.load(folder(MAPPED * 2, [{"q": "x", "good": "y"}]), columns=columns)
    report = Preferences.load(folder(PAIRS, DEMONSTRATIONS), format="pairwise", max_rejected=0.5).report
    assert report.rejected == {"missing column": 6}


def test_a_file_without_a_usable_row_is_left_to_the_checks_of_rows(folder: Callable[..., Path]) -> None:
    path = folder(PAIRS, [])
    (path / "b.jsonl").write_text("[1]\n[2]\n")
    assert Preferences.load(path, max_rejected=0.5).report.rejected == {"not an object": 2}


@pytest.mark.parametrize("as_pattern", [False, True])
def test_rows_of_several_files_are_kept_until_one_changes(
    as_pattern: bool, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_WORTH_KEEPING", 1)
    monkeypatch.setattr("align.data.storage._CHUNK_ROWS", 2)
    monkeypatch.setattr("align.data.storage._CHUNKS_IN_MEMORY", 2)
    read: list[str] = []
    blocks = loading.read_blocks

    def read_blocks(source: Any, *given: Any, **options: Any) -> Any:
        read.append(source)
        return blocks(source, *given, **options)

    monkeypatch.setattr(loading, "read_blocks", read_blocks)
    path = folder(PAIRS, PAIRS)
    source = str(path / "*.jsonl") if as_pattern else str(path)
    first = Preferences.load(source)
    again = Preferences.load(source)
    assert (again.fingerprint, again.report, read) == (first.fingerprint, first.report, [source])
    folder(PAIRS, PAIRS[:5])
    assert len(Preferences.load(source)) == 11
    folder(PAIRS, PAIRS[:5], PAIRS)
    assert len(Preferences.load(source)) == 17
    assert len(read) == 3


def test_files_about_the_data_and_hidden_ones_are_no_rows(folder: Callable[..., Path]) -> None:
    path = folder(PAIRS)
    for name in ("dataset_infos.json", "dataset_info.json", ".cache/data.json"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps({"default": {"features": {"prompt": "text"}}}))
    assert Preferences.load(path).report.kept == 6
