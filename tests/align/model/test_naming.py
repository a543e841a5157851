"""Names of models in files and sentences: no path of this machine, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.model.naming import find_base, portable_name, portable_text, short_name
from align.world.shipped import FOLDER


def test_names_that_stay(tmp_path: Path) -> None:
    for name in ("Qwen/Qwen3-0.6B", "world/base", "./beside", "gpt2"):
        assert portable_name(name, tmp_path) == name
        assert short_name(name) == name


def test_an_embedded_model_has_its_name_everywhere(tmp_path: Path) -> None:
    assert portable_name(str(FOLDER / "base"), tmp_path) == "world/base"
    assert short_name(str(FOLDER / "base")) == "world/base"
    inside = FOLDER / "base" / "inside"
    assert portable_name(str(inside), tmp_path).startswith("..")
    assert short_name(str(inside)) == "inside"


def test_a_path_becomes_relative_to_the_file_and_is_found_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "runs" / "final").mkdir(parents=True)
    folder = tmp_path / "runs" / "final"
    base = tmp_path / "models" / "base"
    assert portable_name(str(base), folder) == "../../models/base"
    assert find_base("../../models/base", folder) == str(base.resolve())
    assert short_name(str(base)) == "base"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert portable_name("~/models/base", folder) == "../../models/base"
    assert short_name("~/models/base") == "base"


def test_links_are_followed_on_both_sides(tmp_path: Path) -> None:
    """``..`` of a link is that of the folder it points to."""
    (tmp_path / "a" / "b" / "real").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "a" / "b" / "real")
    (tmp_path / "name").symlink_to(tmp_path / "base")
    name = portable_name(str(tmp_path / "name"), tmp_path / "folder")
    assert name == "../../../base"
    assert find_base(name, tmp_path / "folder") == str((tmp_path / "base").resolve())


def test_only_a_relative_path_that_is_there_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "gpt2").mkdir()
    assert find_base("gpt2", tmp_path) == "gpt2"  # a name on the hub, whatever lies beside
    assert find_base("./gpt2", tmp_path) == str((tmp_path / "gpt2").resolve())
    assert find_base("../gone", tmp_path) == "../gone"
    assert find_base(str(tmp_path), tmp_path) == str(tmp_path)


def test_a_text_keeps_all_but_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    typed = f"align compare 'methods=[sft,{tmp_path}/mine.py:Mine]' data={tmp_path}/here/pairs.jsonl model=world/base"
    assert portable_text(typed) == "align compare 'methods=[sft,../mine.py:Mine]' data=pairs.jsonl model=world/base"
    for text in ("rates of 1/3 and/or 0.5", "https://host/path", "runs/a/b", "± 95 % / 5 %", "../a/b", "~/a"):
        assert portable_text(text) == text
