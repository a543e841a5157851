"""Each judgement is on disk at once, and read back as it was."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from align import Preferences
from align.errors import UserError
from align.labelling.session import Session, Verdict
from tests.align.labelling.conftest import SETTINGS, Begin, made_pair


def labels(session: Session) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (session.folder / "labels.jsonl").read_text().splitlines()]


def judge(session: Session, verdict: Verdict, annotator: str = "ann", **rest: Any) -> str:
    """Judge the next pair and return its key."""
    pair = session.next(annotator)
    assert pair is not None
    session.judge(annotator, pair, verdict, **rest)
    return pair.key


def test_a_preference_is_a_row_of_the_pairwise_format(begin: Begin) -> None:
    session = begin(made_pair(0, source="s"))
    pair = session.pairs[0]
    left = session.left("ann", pair)
    judge(session, "right", seconds=2.34, note="clearer")
    chosen, rejected = pair.answers[1 - left], pair.answers[left]
    expected = {
        **{"prompt": "Question 0?", "chosen": chosen.text, "rejected": rejected.text, "source": "s"},
        **{"chosen_drawn": chosen.ids, "rejected_drawn": rejected.ids, "drawn_with": "t"},
        **{"annotator": "ann", "seconds": 2.3, "note": "clearer", "chosen_left": False},
    }
    assert labels(session) == [expected]


TURNS = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]


@pytest.mark.parametrize("row", [{}, {"prompt": TURNS}, {"prompt": [{"role": "text", "content": "Once"}]}])
def test_the_loader_takes_every_label(row: dict[str, Any], begin: Begin) -> None:
    session = begin(*(made_pair(i, **row) for i in range(4)))
    for verdict in ("left", "right", "left", "right"):
        judge(session, verdict, note="wrong, rejected is better")
    data = Preferences.load(session.folder / "labels.jsonl")
    assert (len(data), data.report.rule, dict(data.report.rejected)) == (4, "label-page", {})
    assert not data.report.warnings
    if row:
        assert [turn["content"] for turn in data[0]["prompt"]] == [turn["content"] for turn in row["prompt"]]
    assert data[0]["chosen_drawn"] in ([0, 0], [0, 1])


def test_ties_both_bad_and_skips_are_kept_but_no_labels(begin: Begin) -> None:
    session = begin()
    for verdict in ("tie", "bad", "skip", "left"):
        judge(session, verdict)
    assert len(labels(session)) == 1
    again = Session(session.folder)
    assert [one["verdict"] for one in again.judgements] == ["tie", "bad", "skip", "left"]
    assert again.counts(again.judgements) == {"preference": 1, "tie": 1, "bad": 1, "skip": 1, "blank": 0}


def test_a_blank_answer_can_lose_but_is_no_row(begin: Begin) -> None:
    session = begin(made_pair(0, second=" \n"), made_pair(1))
    judge(session, "left")
    judge(session, "left")
    assert len(labels(session)) == 1
    assert session.counts(session.judgements)["blank"] == 1


def test_equal_answers_are_not_shown(begin: Begin) -> None:
    session = begin(made_pair(0, "same", "same"), made_pair(1))
    assert judge(session, "left") == "p1"
    assert session.next("ann") is None


def test_a_session_goes_on_after_a_kill_at_any_byte(begin: Begin) -> None:
    """The journal cut anywhere: the judgements whole before the cut stand, and the labels follow them."""
    session = begin()
    for verdict in ("left", "tie", "right"):
        judge(session, verdict)
    journal = session.folder / "judgements.jsonl"
    whole = journal.read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        journal.write_bytes(whole[:cut])
        again = Session(session.folder)
        kept = whole[:cut].count(b"\n")
        assert again.judgements == session.judgements[:kept]
        assert len(labels(again)) == [0, 1, 1, 2][kept]
        shown = again.next("ann")
        assert shown is not None
        assert shown.key == f"p{kept}"


def test_undo_shows_the_pair_again_also_after_a_restart(begin: Begin) -> None:
    session = begin()
    for verdict in ("left", "right", "skip"):
        judge(session, verdict, note=verdict)
    for key, note, rows in (("p2", "skip", 2), ("p1", "right", 1), ("p0", "left", 0)):
        session = Session(session.folder)
        undone = session.undo("ann")
        assert undone is not None
        assert (undone["pair"], undone["note"]) == (key, note)
        shown = session.next("ann")
        assert shown is not None
        assert (shown.key, len(labels(session))) == (key, rows)
    assert session.undo("ann") is None
    judge(session, "tie")
    assert [one["verdict"] for one in Session(session.folder).judgements] == ["tie"]


def test_an_undo_takes_back_nothing_of_another_annotator(begin: Begin) -> None:
    session = begin()
    judge(session, "left", "ann")
    judge(session, "right", "bob")
    session.undo("ann")
    assert [one["annotator"] for one in Session(session.folder).judgements] == ["bob"]
    assert session.undo("ann") is None


def test_two_windows_at_once_judge_a_pair_once(begin: Begin) -> None:
    session = begin()
    pair = session.pairs[0]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda _: session.judge("ann", pair, "left"), range(16)))
    assert (sum(kept), len(Session(session.folder).judgements), len(labels(session))) == (1, 1, 1)
    assert session.judge("bob", pair, "right")


def test_sides_are_random_and_stay(begin: Begin) -> None:
    session = begin(count=400)
    sides = [session.left("ann", pair) for pair in session.pairs]
    again = Session(session.folder)
    assert sides == [again.left("ann", pair) for pair in again.pairs]
    assert 150 < sum(sides) < 250  # 5 standard deviations of 400 fair coins
    assert sides != [session.left("bob", pair) for pair in session.pairs]


def test_the_least_sure_come_first(begin: Begin) -> None:
    session = begin(*(made_pair(i, gap=gap) for i, gap in enumerate((0.5, 0.1, 0.9, 0.3))))
    order: list[str] = []
    while (pair := session.next("ann", active=True)) is not None:
        order.append(pair.key)
        session.judge("ann", pair, "tie")
    assert order == ["p1", "p3", "p0", "p2"]


def test_another_setting_is_refused_by_name(begin: Begin) -> None:
    session = begin(temperature=0.7)
    with pytest.raises(UserError, match=r"begun otherwise: temperature is 0\.7 in it and 0\.9 now; give what"):
        Session.begin(session.folder, {**SETTINGS, "temperature": 0.9})
    assert Session.begin(session.folder, {**SETTINGS, "temperature": 0.7}).pairs == session.pairs


def test_a_folder_that_is_no_session_and_one_that_lost_pairs(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a labelling session"):
        Session(tmp_path)
    session = begin()
    judge(session, "left")
    (session.folder / "pairs.jsonl").write_text("")
    with pytest.raises(UserError, match=r"names the pair p0, which .*pairs\.jsonl has not"):
        Session(session.folder)


def test_a_last_line_without_its_end_is_kept_if_it_is_whole(begin: Begin) -> None:
    """An editor that strips the end of a file takes no judgement away; half a line, of a kill, is cut off."""
    session = begin(*(made_pair(i) for i in range(3)))
    for _ in range(2):
        judge(session, "left")
    journal = session.folder / "judgements.jsonl"
    whole = journal.read_bytes()
    for left in (whole.removesuffix(b"\n"), whole + b'{"event": "judg'):
        journal.write_bytes(left)
        assert len(Session(session.folder).judgements) == 2
        assert journal.read_bytes() == whole


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("judgements.jsonl", "{}", r"judgements\.jsonl:2 was changed from outside \(it has no 'event'\)"),
        ("judgements.jsonl", "[]", "it is no JSON object"),
        ("judgements.jsonl", '"seconds": null', "its seconds are no number"),
        ("judgements.jsonl", '"verdict": "good"', "its verdict is none of left, right, tie, bad, skip"),
        ("judgements.jsonl", '"verdict": "tie"', "the answer preferred is not that of the verdict"),
        ("judgements.jsonl", '"annotator": 3', "its annotator is no text"),
        ("judgements.jsonl", '"note": ""', "has two judgements of ann on the pair"),
        ("pairs.jsonl", '{"key": "a", "row": {}}', r"pairs\.jsonl:2 was changed from outside \(it has no 'answers'\)"),
        ("pairs.jsonl", '{"key": "a", "row": {}, "answers": []}', "changed from outside"),
        ("session.json", "{", r"session\.json is damaged \(Expecting"),
        ("session.json", "[]", r"session\.json is damaged \(no dict\)"),
        ("session.json", "{}", r"session\.json is damaged \(no against\)"),
    ],
)
def test_what_was_changed_from_outside_is_named(file: str, line: str, said: str, begin: Begin) -> None:
    session = begin(made_pair(0))
    judge(session, "left")
    place = session.folder / file
    if line[0] == '"':
        changed = json.loads(place.read_text()) | json.loads(f"{{{line}}}")
        place.write_text(place.read_text() + json.dumps(changed) + "\n")
    else:
        place.write_text(("" if file == "session.json" else place.read_text()) + f"{line}\n")
    with pytest.raises(UserError, match=said):
        Session(session.folder)
