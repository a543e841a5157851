"""Splits by prompt, and leakage between data sets."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from align.data import Preferences, leaked_prompts, storage
from align.data import preferences as preferences_module
from align.data.schema import COLUMNS, prompt_key
from align.errors import UserError
from tests.align.data.conftest import Pair


def prompts(preferences: Preferences) -> set[str]:
    return {row["prompt"][0]["content"] for row in preferences}


@pytest.fixture
def preferences(pair: Pair) -> Preferences:
    """40 rows over 10 prompts, whose ids say nothing of which prompts are the same."""
    return Preferences.from_rows(
        [pair(number % 10, chosen=f"It is {number}", prompt_id=f"id{number}") for number in range(40)]
    )


@pytest.mark.parametrize(("heldout", "rows"), [(2, 8), (0.2, 8), (0.01, 4), (0.99, 36), (5, 20)])
def test_no_prompt_is_on_both_sides(preferences: Preferences, heldout: float, rows: int) -> None:
    train, test = preferences.train_test_split(heldout, seed=0)
    assert (len(train), len(test)) == (40 - rows, rows)
    assert not prompts(train) & prompts(test)
    assert prompts(train) | prompts(test) == prompts(preferences)
    assert leaked_prompts(train, test) == []
    assert train.report == preferences.report


def test_the_split_depends_on_seed_and_prompts_alone(preferences: Preferences) -> None:
    _, first = preferences.train_test_split(3, seed=1)
    _, again = preferences.train_test_split(3, seed=1)
    _, other = preferences.train_test_split(3, seed=2)
    _, reordered = preferences.select(reversed(range(40))).train_test_split(3, seed=1)
    assert [row["place"] for row in first] == [row["place"] for row in again]
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert prompts(first) == prompts(reordered) != prompts(other)


@pytest.mark.parametrize("heldout", [0, 10, -3, 0.0, 1.0, 1.5, float("nan")])
def test_a_side_that_would_be_empty_is_an_error(preferences: Preferences, heldout: float) -> None:
    with pytest.raises(UserError, match="leaves one side empty"):
        preferences.train_test_split(heldout, seed=0)


def test_one_prompt_cannot_be_split(pair: Pair) -> None:
    with pytest.raises(UserError, match=r"data\.heldout_size=0\.5 of 1 prompts"):
        Preferences.from_rows([pair(0), pair(0, chosen="One.")]).train_test_split(0.5, seed=0)


def test_44_leaked_prompts_are_named(pair: Pair) -> None:
    train = Preferences.from_rows([pair(0), pair(1)], name="train")
    heldout = Preferences.from_rows([pair(2), pair(1, chosen="Two."), pair(3)], name="heldout")
    assert leaked_prompts(train, heldout) == ["heldout:2"]


def test_rewritten_rows_are_known_by_what_was_made(pair: Pair) -> None:
    """The cache of the tokenised rows goes by it."""
    preferences = Preferences.from_rows([pair(0), pair(1)])

    def answered(text: str) -> Preferences:
        return preferences.rewritten(lambda row: [{**row, "chosen": [{"role": None, "content": text}]}])

    yes, again, no = answered("Yes."), answered("Yes."), answered("No.")
    assert [row["chosen"][0]["content"] for row in no] == ["No.", "No."]
    assert yes.fingerprint == again.fingerprint
    assert len({preferences.fingerprint, yes.fingerprint, no.fingerprint}) == 3


def test_a_prompt_may_end_with_what_a_tool_answered() -> None:
    turns = [("user", "What is 2 + 2?"), ("assistant", "add(2, 2)"), ("tool", "4")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "4."), ("rejected", "5."))}
    (row,) = Preferences.from_rows([{"prompt": prompt, **sides}])
    assert row["prompt"] == prompt


@pytest.mark.parametrize(("bad", "limit"), [(1, "0.334"), (2, "0.5"), (4, "0.667")])
def test_the_limit_that_a_message_advises_is_enough(bad: int, limit: str, pair: Pair) -> None:
    """Of bad rows and two good ones, rounded up to a thousandth."""
    rows = [pair(0), pair(1), *[pair(n, chosen="") for n in range(2, 2 + bad)]]
    with pytest.raises(UserError, match=rf"data\.max_rejected={re.escape(limit)}\."):
        Preferences.from_rows(rows)
    assert len(Preferences.from_rows(rows, max_rejected=float(limit))) == 2


def test_prompts_are_held_out_in_the_order_of_a_hash_of_seed_and_key(preferences: Preferences) -> None:
    keys = {prompt_key(row["prompt"]) for row in preferences}
    for seed in (0, 7):
        first = sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())[:3]
        train, held = preferences.train_test_split(3, seed=seed)
        assert {prompt_key(row["prompt"]) for row in held} == set(first)
        for side in (train, held):
            numbers = [int(row["place"].removeprefix("rows:")) for row in side]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize(("share", "prompts_held"), [(0.24, 2), (0.26, 3), (0.25, 2), (0.35, 4), (0.04, 1), (0.96, 9)])
def test_a_share_is_rounded_and_leaves_a_prompt_on_each_side(
    share: float, prompts_held: int, preferences: Preferences
) -> None:
    """Of ten prompts; a half is rounded to the even number, as everywhere in Python."""
    _, held = preferences.train_test_split(share, seed=0)
    assert len(prompts(held)) == prompts_held


def test_a_selection_has_its_rows_in_order_and_a_fingerprint_of_its_own(pair: Pair) -> None:
    data = Preferences.from_rows([pair(number) for number in range(4)], max_rejected=0.25)
    chosen = data.select(iter([3, 1, 1]))
    assert [row["place"] for row in chosen] == ["rows:4", "rows:2", "rows:2"]
    assert (len(chosen), chosen[-1]["place"], chosen.rules.max_rejected) == (3, "rows:2", 0.25)
    assert chosen.report == data.report
    other = Preferences.from_rows([pair(number) for number in range(1, 5)])
    made = [data, data.select([0, 1]), data.select([1, 0]), data.select([0]), other.select([0, 1])]
    assert len({one.fingerprint for one in made}) == 5
    assert data.select(range(2)).fingerprint == data.select([0, 1]).fingerprint


def test_a_row_is_read_without_copying_all_that_describes_the_rows(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    data, copies = Preferences.from_rows([pair(number) for number in range(3)]), list[str]()
    original = datasets.Dataset.with_format

    def counted(rows: datasets.Dataset, *kind: str) -> datasets.Dataset:
        copies.append(*kind)
        return original(rows, *kind)

    monkeypatch.setattr(datasets.Dataset, "with_format", counted)
    assert [data[i]["place"] for i in (2, 0, -1)] == ["rows:3", "rows:1", "rows:3"]
    assert copies == ["arrow"]


def test_the_fingerprint_is_that_of_every_column(pair: Pair) -> None:
    changes: list[dict[str, Any]] = [{name: 0.5} for name in ("chosen_score", "rejected_score", "margin", "weight")]
    changes += [{name: "x"} for name in ("prompt", "chosen", "rejected", "prompt_id", "answer", "source", "drawn_with")]
    changes += [{"chosen_drawn": [1]}, {"rejected_drawn": [1]}, {}]
    made = [Preferences.from_rows([pair(0), pair(1) | change], name="a").fingerprint for change in changes]
    assert len(set(made)) == len(changes) == 14
    assert Preferences.from_rows([pair(0), pair(1)], name="another place").fingerprint == made[-1]
    assert Preferences.from_rows([pair(1), pair(0)]).fingerprint not in made


def test_rewritten_rows_keep_the_place_of_the_row_they_were_made_of(pair: Pair) -> None:
    data = Preferences.from_rows([pair(number) for number in range(3)], max_rejected=0.5)
    seen: list[set[str]] = []

    def twice(row: Any) -> list[dict[str, Any]]:
        seen.append(set(row))
        return [] if "1 + 1" in row["prompt"][0]["content"] else [{**row, "weight": 2.0}, {**row, "weight": 3.0}]

    made = data.rewritten(twice)
    assert [(row["place"], row["weight"]) for row in made] == [
        ("rows:1", 2.0),
        ("rows:1", 3.0),
        ("rows:3", 2.0),
        ("rows:3", 3.0),
    ]
    assert seen == [set(COLUMNS)] * 3
    assert (made.report, made.rules.max_rejected) == (data.report, 0.5)


def test_rows_of_more_than_one_chunk_stay_in_order(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, and mapped from a file where there are many."""
    monkeypatch.setattr(storage, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(preferences_module, "_SAMPLE_ROWS", 3)
    rows = [pair(number, question=number) for number in range(7)]
    fingerprints: set[str] = set()
    for chunks in (10, 2):
        monkeypatch.setattr(storage, "_CHUNKS_IN_MEMORY", chunks)
        data = Preferences.from_rows(rows, columns={"answer": "question"})
        assert bool(data.dataset.cache_files) == (chunks == 2)
        assert [row["place"] for row in data] == [f"rows:{number}" for number in range(1, 8)]
        assert [row["answer"] for row in data] == [str(number) for number in range(7)]
        assert data.report.read == 7
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 1


def test_rows_of_a_large_file_are_kept_for_the_next_run(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(storage, "_CHUNKS_IN_MEMORY", 1)
    monkeypatch.setattr(preferences_module, "_WORTH_KEEPING", 10)
    file = tmp_path / "pairs.jsonl"
    rows = [*(pair(number) for number in range(5)), pair(9, chosen="")]
    file.write_text("\n".join(map(json.dumps, rows)))
    first = Preferences.load(file, max_rejected=0.5)
    monkeypatch.setattr(preferences_module, "read_blocks", None)  # it is not read again
    again = Preferences.load(file, max_rejected=0.5, pairs="adjacent")
    assert list(again) == list(first)
    assert (again.fingerprint, again.report) == (first.fingerprint, first.report)
    assert again.rules.pairs == "adjacent"
    monkeypatch.undo()
    monkeypatch.setattr(preferences_module, "_WORTH_KEEPING", 10)
    with pytest.raises(UserError, match="1 of 6 rows rejected"):
        Preferences.load(file)
    file.write_text("\n".join(map(json.dumps, rows[:4])))
    assert len(Preferences.load(file)) == 4


def test_a_column_that_is_not_read_is_said_in_the_log(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    data = Preferences.from_rows([pair(0, mood="good", source="s"), pair(1, mood="bad", source="t")], name="mine")
    assert data.report.warnings == ('column "mood" is not read',)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        'mine: column "mood" is not read'
    ]


def test_defaults_of_loading(pair: Pair) -> None:
    """1 % of the rows may be rejected: of 100 one, but not two."""
    rows = [pair(number) for number in range(98)]
    assert Preferences.from_rows([*rows, pair(98), pair(99, chosen="")]).rules.max_rejected == 0.01
    with pytest.raises(UserError, match=r"rows: 2 of 100 rows rejected"):
        Preferences.from_rows([*rows, pair(98, chosen=""), pair(99, chosen="")])
    assert Preferences.from_rows(rows, max_rejected=0.0).rules.max_rejected == 0.0
    with pytest.raises(UserError, match=r"rows: 98 rows, but data\.expected_rows=97"):
        Preferences.from_rows(rows, expected_rows=97)


@pytest.mark.parametrize("usual", ["text", "messages"])
def test_a_column_has_the_type_of_most_rows(usual: str) -> None:
    """Not that of the first row; null fits everywhere."""
    texts = {"prompt": "q", "chosen": "a", "rejected": "b"}
    turns = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    most, other = (texts, turns) if usual == "text" else (turns, texts)
    for name in texts:
        rows = [{**most, name: other[name]}, *[most] * 3, {**most, "rejected": None}]
        report = Preferences.from_rows(rows, max_rejected=0.5).report
        assert report.rejected == {"column changes type": 1}
        changed = "messages" if usual == "text" else "text"
        assert report.examples["column changes type"] == (
            f'rows:1: column changes type ("{name}" is {changed}, in most rows {usual})',
        )


def test_pairs_of_both_polarities_are_told_by_prompt_and_responses() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "b", "rejected": "a"},  # of another prompt
        {"prompt": "p", "chosen": "a", "rejected": "b"},  # the same again
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "p", "chosen": "b", "rejected": None},
        {"prompt": "p", "chosen": None, "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"prompt": "p", "chosen": "c", "rejected": "b"},
    ]
    report = Preferences.from_rows(rows).report
    assert report.noted == {"pair also occurs with the other polarity": 2}
    assert [place.split(": ")[0] for place in report.examples["pair also occurs with the other polarity"]] == [
        "rows:7",
        "rows:8",
    ]


def test_columns_are_renamed_only_where_they_differ(pair: Pair) -> None:
    same = {"prompt": "prompt", "chosen": None, "rejected": "rejected", "answer": None}
    assert Preferences.from_rows([pair(0)], columns=same).fingerprint == Preferences.from_rows([pair(0)]).fingerprint
    with pytest.raises(
        UserError, match=r"^rows: data\.columns\.answer=gold, but no row has the column 'gold'; there are chosen"
    ):
        Preferences.from_rows([pair(0)], columns={"answer": "gold"})
    with pytest.raises(UserError, match=r"there is a column 'answer' as well; remove or rename one\."):
        Preferences.from_rows([pair(0, gold="1", answer="2")], columns={"answer": "gold"})


def test_a_row_that_is_no_object_does_not_decide_the_columns(pair: Pair) -> None:
    rows: list[Any] = [7, pair(0, gold="1"), pair(1, gold="2")]
    data = Preferences.from_rows(rows, columns={"answer": "gold"}, max_rejected=0.4)
    assert [row["answer"] for row in data] == ["1", "2"]
    assert data.report.rejected == {"not an object": 1}
    with pytest.raises(UserError, match=r"no row to learn from \(2 read: none of them an object\)"):
        Preferences.from_rows([7, "x"])  # type: ignore[list-item]


def test_what_is_read_can_be_given_again(pair: Pair) -> None:
    data = Preferences.from_rows([pair(0), pair(1)])
    assert list(Preferences.from_rows(list(data))) == list(data)


def test_data_with_one_prompt_cannot_be_held_out(pair: Pair) -> None:
    data = Preferences.from_rows([pair(0, chosen=f"answer {number}") for number in range(3)])
    with pytest.raises(UserError, match=r"add rows with other prompts, or set data\.heldout_size=0\."):
        data.train_test_split(0.5, 0)


def test_texts_without_a_prompt_are_told_apart_by_what_they_say() -> None:
    """They all have the same empty prompt, which no text leaks."""
    texts = [{"text": f"Once upon a time there were {number} dogs."} for number in range(10)]
    train, heldout = Preferences.from_rows(texts).train_test_split(4, 0)
    assert (len(train), len(heldout)) == (6, 4)
    assert leaked_prompts(train, heldout) == []
    assert leaked_prompts(Preferences.from_rows(texts), heldout) == list(heldout.dataset["place"])


def test_many_rows_stay_in_memory_where_there_is_no_cache(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file")
    monkeypatch.setattr(storage, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(storage, "_CHUNKS_IN_MEMORY", 1)
    monkeypatch.setattr(preferences_module, "_WORTH_KEEPING", 10)
    rows = [pair(number) for number in range(5)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = Preferences.load(tmp_path / "pairs.jsonl")
    assert (len(data), data.dataset.cache_files) == (5, [])
