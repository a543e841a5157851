"""Real files: what is kept and lost of each, counted here from the raw rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences


@pytest.mark.parametrize(
    ("file", "rule", "count"),
    [
        ("llamafactory-demos/dpo_en_demo.json", "sharegpt-pairs", 300),
        ("llamafactory-demos/kto_en_demo.json", "kto-messages", 300),
        ("llamafactory-demos/alpaca_en_demo.json", "alpaca", 999),
        ("ifeval/input_data.jsonl", "instructions", 541),
        ("self-instruct/seed_tasks.jsonl", "self-instruct", 175),
        ("self-instruct/user_oriented_instructions.jsonl", "self-instruct", 252),
        ("t0-templates/ag_news_classify.jsonl", "prompt-completion", 200),
        ("anthropic-evals/agreeableness.jsonl", "anthropic-evals", 1000),
        ("mt-bench/question.jsonl", "questions", 80),
    ],
)
def test_every_row_is_usable(file: str, rule: str, count: int, shared: Path) -> None:
    report = Preferences.load(shared / "data" / file).report
    assert (report.rule, report.read, report.kept, report.lost) == (rule, count, count, 0)


def test_labels_of_the_kto_demo(shared: Path) -> None:
    file = shared / "data" / "llamafactory-demos" / "kto_en_demo.json"
    good = Counter(row["label"] if "label" in row else row["kto_tag"] for row in json.loads(file.read_text()))
    rows = list(Preferences.load(file))
    assert (sum(row["rejected"] is None for row in rows), sum(row["chosen"] is None for row in rows)) == (
        good[True],
        good[False],
    )


def test_votes_of_pandalm(shared: Path) -> None:
    file = shared / "data" / "pandalm-test" / "testset-v1.json"
    raw: list[dict[str, Any]] = json.loads(file.read_text())
    outcomes: Counter[str] = Counter()
    for row in raw:
        vote, count = Counter(row[f"annotator{i}"] for i in (1, 2, 3)).most_common(1)[0]
        sides = [row["response1"], row["response2"]]
        if count < 2:
            outcomes["no majority"] += 1
        elif vote == 0:
            outcomes["tie"] += 1
        elif not all(isinstance(side, str) and side for side in sides) or sides[0] == sides[1]:
            outcomes["bad"] += 1
        else:
            outcomes["kept"] += 1
    report = Preferences.load(file, max_rejected=0.1).report
    assert report.read == 999
    assert report.kept == outcomes["kept"]
    assert sum(report.rejected.values()) == outcomes["bad"]
    assert report.left_out.get("the annotators have no majority", 0) == outcomes["no majority"]
    assert report.left_out["tie between the responses"] == outcomes["tie"]
