"""The run that a checkpoint belongs to: another one, or another format, is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.runs import checkpoint as module
from align.runs.checkpoint import CheckpointStore, newest_version, require_current_version
from align.system.identity import Identity
from tests.align.runs.checkpoints import save, store


def test_another_identity_is_refused_and_named(tmp_path: Path) -> None:
    save(store(tmp_path, data="a", trainer={"seed": 1, "lr": 0.1}), 1)
    with pytest.raises(UserError, match=r"resumed: trainer\.seed is 1 in the run and 2 now\."):
        store(tmp_path, data="a", trainer={"seed": 2, "lr": 0.1}).latest()
    other = store(tmp_path, data="b", trainer={"seed": 1, "lr": 0.1})
    other.accepted_by = {"data": "any_data=true"}
    with pytest.raises(UserError, match=r"Give what it began with, any_data=true for data, or if_exists=new\."):
        other.latest()


def test_another_rounding_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    def of(**computed: Any) -> CheckpointStore:
        return CheckpointStore(tmp_path, Identity({"seed": 0}, computed), keep=1, rank=0, barrier=lambda: None)

    save(of(device="cpu", torch="1"), 1)
    assert of(device="cpu", torch="1").latest()[1] == []
    found, notes = of(device="cuda", torch="2").latest()
    assert found is not None
    assert notes == [
        "From here on results may differ in rounding: device is cpu in the run and cuda now; "
        "torch is 1 in the run and 2 now."
    ]


def test_what_follows_from_another_difference_is_not_named(tmp_path: Path) -> None:
    def of(**learnt: Any) -> CheckpointStore:
        follows = {"steps": ("data",)}
        return CheckpointStore(tmp_path, Identity(learnt), follows=follows, keep=1, rank=0, barrier=lambda: None)

    save(of(data="a", steps=1), 1)
    with pytest.raises(UserError, match=r"cannot be resumed: data is a in the run and b now\. Give"):
        of(data="b", steps=2).latest()
    with pytest.raises(UserError, match=r"cannot be resumed: steps is 1 in the run and 2 now\. Give"):
        of(data="a", steps=2).latest()


def test_a_checkpoint_of_an_earlier_format_is_found_without_a_comparison(tmp_path: Path) -> None:
    """Its identity has other entries. Without a version it is of the first."""
    folder = save(store(tmp_path), 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("version") == module.VERSION
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "manifest.sha256").unlink()
    found, _ = store(tmp_path, seed=1).latest()
    assert found is not None
    assert (found.step, found.version, newest_version(tmp_path)) == (1, 1, 1)
    require_current_version(tmp_path, module.VERSION)
    with pytest.raises(UserError, match=r"was begun by an earlier version .* the format 1, not 6; finish it"):
        require_current_version(tmp_path, found.version)


def test_the_newest_format_is_that_of_the_newest_manifest_that_can_be_read(tmp_path: Path) -> None:
    assert newest_version(tmp_path) is None
    for step, text in ((1, '{"version": 1}'), (2, '{"version": 2}'), (3, "{"), (4, "[]"), (5, None)):
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        if text is not None:
            (folder / "manifest.json").write_text(text)
    assert newest_version(tmp_path) == 2
