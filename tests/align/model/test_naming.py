"""Names of models in files and sentences: no path of this machine, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.model.naming import find_base, portable_name, short_name, without_places
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data=/home/me/a/pairs.jsonl x=[/q/w/e,/r/t]", "data=pairs.jsonl x=[e,t]"),
        ("~/mine/model.yaml:3: no setting", "model.yaml:3: no setting"),
        ("https://example.org/a/b and world/base, runs/a/b, ./x/y", None),
        ("1/2/3 and /score RIGHT", None),
        ({"model": "/home/me/model", "weights": [1.0, "/a/b"]}, {"model": "model", "weights": [1.0, "b"]}),
    ],
)
def test_a_page_that_is_passed_on_has_no_absolute_paths(text: object, shown: object) -> None:
    assert without_places(text) == (text if shown is None else shown)
