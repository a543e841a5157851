"""Differences of two identities: each named once, in words, without hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.system.identity import content_hash, differences, hashed, require_same

ONE, OTHER = hashed("one"), hashed("other")


@pytest.mark.parametrize(
    ("saved", "ours", "expected"),
    [
        ({"a": {"r": 4}}, {"a": {"r": 4}}, []),
        ({"a": {"r": 4}}, {"a": {"r": 8}}, ["a.r is 4 in the run and 8 now"]),
        ({"a": (0.9, 0.99)}, {"a": [0.9, 0.99]}, []),  # as JSON has them
        ({"a": "ipo"}, {"a": "hinge"}, ["a is ipo in the run and hinge now"]),
        ({"a": False}, {"a": True}, ["a is false in the run and true now"]),
        ({"a": None}, {}, []),
        ({"a": None}, {"a": 3}, ["a is not set in the run and 3 now"]),
        ({"data": ONE}, {"data": OTHER}, ["data is not the same"]),
        ({"data": None}, {"data": OTHER}, ["data is not set in the run and set now"]),
        ({"adapter": "none"}, {"adapter": {"r": 4, "alpha": 8}}, ["adapter is none in the run and set now"]),
        ({"reward": {"x": 1, "y": {"z": 2}}}, {"reward": None}, ["reward is set in the run and not set now"]),
        (
            {"a": 1, "b": 1, "c": 1},
            {"a": 2, "b": 1, "c": 2},
            ["a is 1 in the run and 2 now", "c is 1 in the run and 2 now"],
        ),
    ],
)
def test_differences(saved: Any, ours: Any, expected: list[str]) -> None:
    assert differences(saved, ours) == expected


def test_a_difference_that_another_explains_is_not_named() -> None:
    follows = {"weights": ("adapter", "seed")}
    before, now = {"weights": ONE, "adapter": {"r": 4}}, {"weights": OTHER, "adapter": {"r": 8}}
    assert differences(before, now, follows) == ["adapter.r is 4 in the run and 8 now"]
    assert differences({"weights": ONE}, {"weights": OTHER}, follows) == ["weights is not the same"]


def test_the_refusal_has_every_difference_and_no_hash() -> None:
    found = differences({"data": ONE, "seed": 0}, {"data": OTHER, "seed": 1})
    with pytest.raises(UserError) as caught:
        require_same(Path("runs/x"), found)
    assert str(caught.value) == (
        "runs/x cannot be resumed: data is not the same; seed is 0 in the run and 1 now. "
        "Give what it began with, or if_exists=new."
    )
    require_same(Path("runs/x"), [])


def test_a_folder_is_known_by_names_and_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "weights").write_bytes(b"\0\1")
        (tmp_path / name / ".cache").write_text(name)  # hidden files do not count
    a, b = tmp_path / "a", tmp_path / "b"
    first = content_hash(a)
    assert content_hash(b) == first
    (b / "inner" / "weights").write_bytes(b"\1\0")  # the same sum
    assert content_hash(b) != first
    (a / "inner" / "weights").rename(a / "inner" / "other")
    assert content_hash(a) != first
