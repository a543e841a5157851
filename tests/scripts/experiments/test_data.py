"""The data sets of the experiments are those that their settings say, and nothing that is asked was trained on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from experiments.data import make

from align.world import FAMILIES, Goal


def rows(tmp_path: Path, seed: int = 0, **settings: Any) -> list[dict[str, Any]]:
    file = tmp_path / "made.jsonl"
    make(settings, seed, file)
    return [json.loads(line) for line in file.read_text().splitlines()]


def families(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.loads(row["answer"])["family"] for row in found)


def test_demonstrations_are_the_same_for_a_seed_and_other_ones_for_another(tmp_path: Path) -> None:
    first = rows(tmp_path, make="demonstrations", n=20)
    assert rows(tmp_path, make="demonstrations", n=20) == first
    assert rows(tmp_path, 1, make="demonstrations", n=20) != first


def test_families_come_equally_often_and_from_as_many_clusters_as_there_are(tmp_path: Path) -> None:
    found = families(rows(tmp_path, make="demonstrations", n=80, families=16))
    assert set(found.values()) == {5}
    assert len(found) == 16
    assert len({FAMILIES[name].cluster for name in found}) == 10
    chosen = [set(families(rows(tmp_path, seed, make="demonstrations", n=80, families=4))) for seed in range(3)]
    assert len({frozenset(names) for names in chosen}) > 1


@pytest.mark.parametrize(("clusters", "count"), [(1, 1), (3, 3), (["ordering", "recall"], 2)])
def test_clusters(tmp_path: Path, clusters: Any, count: int) -> None:
    found = families(rows(tmp_path, make="demonstrations", n=60, clusters=clusters))
    assert len({FAMILIES[name].cluster for name in found}) == count
    without = families(rows(tmp_path, make="demonstrations", n=120, without=["ordering"]))
    assert "ordering" not in {FAMILIES[name].cluster for name in without}


def test_wordings_and_inputs_alone(tmp_path: Path) -> None:
    def beginnings(**more: Any) -> int:
        found = rows(tmp_path, make="demonstrations", n=60, families=["recall_home"], **more)
        return len({" ".join(row["prompt"].split()[-4:-2]) for row in found})

    assert beginnings(wordings=1) < beginnings()
    (inputs,) = {
        len(row["prompt"].split(". ")[-1].split())
        for row in rows(tmp_path, make="demonstrations", n=30, families=["recall_home"], inputs_only=True)
    }
    assert inputs == 1  # the person's name


@pytest.mark.parametrize("split", ["seen", "template", "family"])
def test_prompts_are_held_out_and_the_same_for_every_seed(tmp_path: Path, split: str) -> None:
    found = rows(tmp_path, make="prompts", n=60, split=split)
    assert rows(tmp_path, 5, make="prompts", n=60, split=split) == found
    assert len({row["prompt"] for row in found}) == 60
    trained = {row["prompt"] for seed in range(3) for row in rows(tmp_path, seed, make="demonstrations", n=2000)}
    assert trained.isdisjoint(row["prompt"] for row in found)
    for row in found:
        assert FAMILIES[json.loads(row["answer"])["family"]].held_out == (split == "family")
        assert split == "family" or Goal.from_json(row["answer"]).is_held_out
    assert rows(tmp_path, make="prompts", n=60, split=split, of=8000) != found


def test_sums_have_one_solution_and_its_answer(tmp_path: Path) -> None:
    train, asked = (rows(tmp_path, make="sums", n=30, split=split, of=7000) for split in ("train", "seen"))
    assert {row["prompt"] for row in train}.isdisjoint(row["prompt"] for row in asked)
    for row in train:
        assert row["chosen"].endswith(f"#### {row['answer']}")


def test_the_world_has_its_files(tmp_path: Path) -> None:
    assert len(rows(tmp_path, make="world", name="heldout.jsonl")) == 580
    assert len(rows(tmp_path, make="world", name="heldout.jsonl", n=7)) == 7
