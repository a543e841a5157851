"""Differences of two identities: each named once, in words, without hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.system.identity import content_hash, differences, hashed, require_same, sha256

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
        ({"reward": ONE}, {"reward": "none"}, ["reward is set in the run and none now"]),
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


def test_a_cause_is_another_key_that_begins_as_named() -> None:
    """A difference does not explain itself, nor does one whose beginning is not among the causes."""
    assert differences({"a": 1}, {"a": 2}, {"a": ("a",)}) == ["a is 1 in the run and 2 now"]
    before, now = {"a": 1, "b": 1}, {"a": 2, "b": 2}
    assert len(differences(before, now, {"a": ("c",)})) == 2
    assert differences(before, now, {"a": ("c", "b")}) == ["b is 1 in the run and 2 now"]
    assert differences({"a": {"x": 1}, "b": 1}, {"a": {"x": 2}, "b": 2}, {"a": ("b",)}) == [
        "b is 1 in the run and 2 now"
    ]


def test_a_hash_is_that_of_the_bytes_or_of_the_json_in_any_order(tmp_path: Path) -> None:
    """sha256 of "abc" as FIPS 180-4 gives it."""
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == abc
    assert content_hash(tmp_path / "file") == hashed(b"abc") == f"sha256:{abc}"
    assert hashed({"a": 1, "b": {"c": 2, "d": 3}}) == hashed({"b": {"d": 3, "c": 2}, "a": 1})
    assert hashed({"a": 1}) != hashed({"a": 2})


@pytest.mark.parametrize(("number", "tail"), [(7, "6 now."), (8, "7 now."), (9, "7 now; 1 more."), (11, "; 3 more.")])
def test_the_refusal_names_eight_differences(number: int, tail: str) -> None:
    found = [f"k{i} is 0 in the run and {i} now" for i in range(number)]
    with pytest.raises(UserError) as caught:
        require_same(Path("runs/x"), found)
    named = str(caught.value).removesuffix(" Give what it began with, or if_exists=new.")
    assert named.endswith(tail)
    assert named.count(" in the run") == min(number, 8)


def test_the_refusal_has_every_difference_and_no_hash() -> None:
    found = differences({"data": ONE, "seed": 0}, {"data": OTHER, "seed": 1})
    with pytest.raises(UserError) as caught:
        require_same(Path("runs/x"), found)
    assert str(caught.value) == (
        "runs/x cannot be resumed: data is not the same; seed is 0 in the run and 1 now. "
        "Give what it began with, or if_exists=new."
    )
    require_same(Path("runs/x"), [])


def test_the_refusal_names_the_setting_that_accepts_a_difference() -> None:
    accepted_by = {"ranks": "any_ranks=true", "disk": "any_disk=true"}
    found = differences({"ranks": 2, "seed": 0}, {"ranks": 1, "seed": 1})
    with pytest.raises(
        UserError, match=r"1 now\. Give what it began with, any_ranks=true for ranks, or if_exists=new\."
    ):
        require_same(Path("runs/x"), found, accepted_by)
    with pytest.raises(UserError, match=r"1 now\. Give what it began with, or if_exists=new\."):
        require_same(Path("runs/x"), found[1:], accepted_by)


def test_a_folder_is_known_by_names_and_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "weights").write_bytes(b"\0\1")
        (tmp_path / name / ".cache").write_text(name)  # hidden files do not count
        (tmp_path / name / "inner" / ".lock").write_text(name)
        (tmp_path / name / ".git").mkdir()
        (tmp_path / name / ".git" / "head").write_text(name)
    a, b = tmp_path / "a", tmp_path / "b"
    first = content_hash(a)
    assert content_hash(b) == first
    (b / "inner" / "weights").write_bytes(b"\1\0")  # the same sum
    assert content_hash(b) != first
    (a / "inner" / "weights").rename(a / "inner" / "other")
    assert content_hash(a) != first
