"""Many blocks, by one process or several: the same rows, report and fingerprint."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.data import Preferences, preferences
from align.data import conversion as conversion_module
from align.data.reading import read_blocks, tables, text

TURNS = [{"role": "user", "content": "Why?"}]


def rows() -> list[Any]:
    """Rows of every fate; the numbers of the lines stand behind them."""
    good = [{"prompt": f"q{n}", "chosen": f"é{n}", "rejected": "no"} for n in range(6)]
    other_side = {"prompt": "q0", "chosen": "no", "rejected": "é0"}
    return [
        {**good[0], "prompt_id": "a", "ranking": "r"},  # 1
        {**good[1], "prompt_id": "a"},  # 2: stands for two prompts
        other_side,  # 3: q0 with the other polarity
        {**good[2], "chosen": ""},  # 4: empty
        other_side,  # 5: once more
        {**good[3], "mood": 1, "age": 2},  # 6: columns that are not read
        {**good[4], "ranking": "r"},  # 7: stands for two prompts
        {**good[5], "chosen": [*TURNS]},  # 8: another type
        {**good[5], "chosen_score": 1, "rejected_score": 2},  # 9
    ]


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*map(json.dumps, rows()), '{"prompt": ', "", '{"prompt": "x", "prompt": "y"}', "[]", json.dumps(rows()[5])]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    alone = Preferences.load(tmp_path / "a.jsonl", max_rejected=1.0)
    monkeypatch.setattr(text, "_BLOCK", 100)
    monkeypatch.setattr(preferences, "_ALONE", 1)
    monkeypatch.setattr(preferences, "core_count", lambda: 2)
    together = Preferences.load(tmp_path / "a.jsonl", max_rejected=1.0)
    assert list(together) == list(alone)
    assert (together.report, together.fingerprint) == (alone.report, alone.fingerprint)
    assert together.report.rejected == {
        "prompt_id stands for two prompts": 1,
        "ranking stands for two prompts": 1,
        "empty chosen": 1,
        "column changes type": 1,
        "invalid JSON": 1,
        "duplicate keys": 1,
        "not an object": 1,
    }
    assert together.report.noted["pair also occurs with the other polarity"] == 2
    assert together.report.warnings == ('columns "age", "mood" are not read',)
    assert [row["place"] for row in together][:4] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:5", "a.jsonl:6"]


@pytest.mark.parametrize("first_is_named", [True, False])
def test_the_key_of_a_prompt_is_no_name_for_another(first_is_named: bool) -> None:
    own = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    key = Preferences.from_rows([own])[0]["prompt_id"]
    named = {**own, "prompt": "another", "prompt_id": key}
    given = [named, {**own, "prompt_id": None}] if first_is_named else [{**own, "prompt_id": None}, named]
    data = Preferences.from_rows(given, max_rejected=0.5)
    assert data.report.rejected == {"prompt_id stands for two prompts": 1}
    assert [row["place"] for row in data] == ["rows:1"]


def test_rows_of_one_ranking_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [("q", 3), ("q", 1), ("q", 2), ("r", 1), ("r", 2), ("s", 5), ("s", 4)]
    given = [{"prompt": prompt, "response": f"answer {score}", "helpfulness": score} for prompt, score in answers]
    whole = Preferences.from_rows(given)
    monkeypatch.setattr(conversion_module, "BLOCK_ROWS", 2)
    divided = Preferences.from_rows(given)
    assert (len(whole), divided.fingerprint, divided.report) == (4, whole.fingerprint, whole.report)


def test_a_block_of_a_table_is_sent_without_the_rest_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_ROWS", 2)
    pq.write_table(pa.table({"prompt": [f"{n} " + "x" * 10_000 for n in range(5)]}), tmp_path / "a.parquet")
    blocks = list(read_blocks(tmp_path / "a.parquet", "train"))
    sent = [pickle.dumps(block) for block in blocks]
    assert max(map(len, sent)) < 25_000
    assert [row.place for data in sent for row in pickle.loads(data)] == [f"a.parquet:{n}" for n in range(1, 6)]
    assert sum(block.size for block in blocks) == pytest.approx((tmp_path / "a.parquet").stat().st_size, abs=3)
