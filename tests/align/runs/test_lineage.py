"""Artifacts of the lineage in W&B: names that meet, and no row of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import Preferences
from align.runs.lineage import Artifact, candidates, dataset, trained, used
from align.system.files import write_json

ROWS = [{"prompt": f"private {i}", "chosen": "private yes", "rejected": "private no"} for i in range(3)]
BAD = {"prompt": "private", "chosen": "", "rejected": "private no"}


def load(file: Path, *rows: dict[str, str]) -> Preferences:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Preferences.load(file, max_rejected=1.0)


def drawn(file: Path, **state: Any) -> Path:
    """A file of candidates with its state, and a word of them."""
    file.write_text('{"prompt": "private"}\n', encoding="utf-8")
    write_json(file.with_suffix(".json"), {"settings": {"k": 2}, "counts": {"kept": 1}, "bytes": 22, **state})
    return file


def made(run: Path, run_id: str | None = "r1", *, adapter: bool = True) -> Path:
    """The folder ``final`` of a run that W&B calls ``run_id``."""
    final = run / "final"
    (final / "reward").mkdir(parents=True)
    if run_id is not None:
        write_json(run / "trackers.json", {"wandb": run_id, "mlflow": "m1"})
    write_json(final / "reward" / ("adapter_config.json" if adapter else "config.json"), {})
    (final / "README.md").write_text("card")
    return final


def test_a_dataset_is_its_fingerprint_and_counts_without_a_row(tmp_path: Path) -> None:
    data = load(tmp_path / "pairs.jsonl", *ROWS, BAD)
    found = dataset(data)
    report = json.loads(found.texts["report.json"])
    assert (found.type, found.files, found.reference) == ("dataset", {}, None)
    assert found.metadata["rows"] == 3
    assert report["fingerprint"] == found.metadata["fingerprint"] == data.fingerprint
    assert (report["read"], report["kept"], sum(report["rejected"].values())) == (4, 3, 1)
    assert "examples" not in report  # they may quote rows
    assert "private" not in json.dumps([dict(found.metadata), dict(found.texts)])


def test_the_name_of_a_dataset_is_that_of_its_rows(tmp_path: Path) -> None:
    """Wherever they lie: the run that learns from a file meets the run that learned from its copy."""
    here, there = load(tmp_path / "a.jsonl", *ROWS), load(tmp_path / "b.jsonl", *ROWS)
    other = load(tmp_path / "c.jsonl", *ROWS[:2])
    assert dataset(here).name == dataset(there).name
    assert dataset(here).name != dataset(other).name


def test_candidates_are_the_state_of_their_file(tmp_path: Path) -> None:
    file = drawn(tmp_path / "candidates.jsonl")
    found = candidates(file)
    assert found is not None
    assert (found.type, found.metadata) == ("candidates", {"kept": 1})
    assert found.files == {"candidates.json": tmp_path / "candidates.json"}
    assert candidates(str(file)) == found
    other = candidates(drawn(tmp_path / "more.jsonl", bytes=23))
    assert other is not None
    assert other.name != found.name


def test_other_files_are_no_candidates(tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").touch()
    write_json(tmp_path / "beside.json", {"settings": {}, "counts": {}})
    (tmp_path / "beside.jsonl").touch()
    for source in ("plain.jsonl", "missing.jsonl", "beside.jsonl"):
        assert candidates(tmp_path / source) is None
    for source in ("world", "org/name", "."):
        assert candidates(source) is None


def test_adapters_are_sent_whole_models_are_named(tmp_path: Path) -> None:
    adapter, whole = made(tmp_path / "one"), made(tmp_path / "two", "r2", adapter=False)
    sent, named = trained(adapter), trained(whole)
    files = {"README.md": adapter / "README.md", "reward/adapter_config.json": adapter / "reward/adapter_config.json"}
    assert sent == Artifact("model-r1", "model", files=files)
    assert named == Artifact("model-r2", "model", reference=whole)


def test_a_folder_that_w_and_b_does_not_know_is_no_artifact(tmp_path: Path) -> None:
    assert trained(made(tmp_path / "untold", None)) is None
    made(tmp_path / "unfinished")
    assert trained(tmp_path / "unfinished" / "gone") is None


@pytest.mark.parametrize("several", [False, True])
def test_a_run_uses_its_data_candidates_and_models(tmp_path: Path, several: bool) -> None:
    """The model it begins from, and the one that rewards it, under the names of the runs that made them."""
    data = load(tmp_path / "pairs.jsonl", *ROWS)
    file = str(drawn(tmp_path / "candidates.jsonl"))
    start, judge = made(tmp_path / "sft", "r1"), made(tmp_path / "judge", "r2")
    config = {
        "data": {"train": [file, "world"] if several else file},
        "model": {"name": "world/base", "start": str(start)},
        "reward": {"model": str(judge / "reward")},
    }
    names = [artifact.name for artifact in used(data, config)]
    own = candidates(file)
    assert own is not None
    assert names == [dataset(data).name, own.name, "model-r1", "model-r2"]


def test_a_run_without_these_uses_its_data_alone(tmp_path: Path) -> None:
    data = load(tmp_path / "pairs.jsonl", *ROWS)
    plain = {"data": {"train": "world"}, "model": {"name": "org/name", "start": None}, "reward": "length"}
    assert used(data, plain) == used(data, {}) == [dataset(data)]
