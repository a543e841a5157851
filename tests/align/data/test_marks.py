"""Marks on single messages: what is not to be trained on, and what may be a bad answer."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.data.schema import prompt_key
from align.errors import UserError
from tests.align.data.formats.tables import read


def conversation(*marks: dict[str, Any], theirs: bool = False) -> list[dict[str, Any]]:
    """A question and an answer for each mark, which the answer has."""
    role, content, names = ("from", "value", ("human", "gpt")) if theirs else ("role", "content", ("user", "assistant"))
    turns: list[dict[str, Any]] = []
    for i, mark in enumerate(marks):
        turns += [{role: names[0], content: f"q{i}"}, {role: names[1], content: f"a{i}", **mark}]
    return turns


def reasons(*marks: dict[str, Any], theirs: bool = False) -> tuple[dict[str, int], dict[str, int]]:
    """Reasons for which a row whose answers have these marks is rejected, and remarks on it."""
    name = "conversations" if theirs else "messages"
    good = [{name: conversation({}, theirs=theirs)}]
    _, report = read([*good, {name: conversation(*marks, theirs=theirs)}])
    return dict(report.rejected), dict(report.noted)


@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"weight": 0}, "weight=0"),
        ({"weight": 0.0}, "weight=0.0"),
        ({"weight": "0"}, "weight=0"),
        ({"train": False}, "train=false"),
        ({"loss": False}, "loss=false"),
        ({"masked": True}, "masked=true"),
        ({"trainOnTurn": False}, "trainOnTurn=false"),
        ({"no_train": True}, "no_train=true"),
    ],
)
def test_an_answer_that_is_not_to_be_trained_on_is_rejected(mark: dict[str, Any], said: str, theirs: bool) -> None:
    assert reasons(mark, theirs=theirs) == ({f"the answer is marked {said}: not to be learned": 1}, {})
    assert reasons(mark, {}, theirs=theirs) == ({}, {})  # an earlier one is context


@pytest.mark.parametrize("mark", [{"weight": 1}, {"weight": 1.0}, {"weight": None}, {"train": True}, {"masked": False}])
def test_an_answer_that_is_to_be_trained_on_is_kept_in_silence(mark: dict[str, Any]) -> None:
    assert reasons(mark) == reasons({"weight": 0}, mark) == ({}, {})


@pytest.mark.parametrize("value", [0.5, -1, 2, "maybe", [0, 1]])
def test_a_mark_between_yes_and_no_rejects_its_row(value: Any) -> None:
    for marks in ([{"weight": value}], [{"weight": value}, {}]):
        assert reasons(*marks)[0] == {'message field "weight" is neither 0 nor 1': 1}


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"label": False}, "label=false"),
        ({"is_good": "False"}, "is_good=false"),
        ({"accepted": False}, "accepted=false"),
        ({"is_toxic": True}, "is_toxic=true"),
        ({"not_helpful": True}, "not_helpful=true"),
    ],
)
def test_an_answer_that_is_marked_as_bad_is_rejected(mark: dict[str, Any], said: str) -> None:
    assert reasons(mark)[0] == {f"the answer is marked {said}: a bad one": 1}
    opposite = {name: value is False or value == "False" for name, value in mark.items()}
    assert reasons(opposite)[0] == {}


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ({"rating": 3}, "rating"),
        ({"score": 0.5}, "score"),
        ({"feedback": "I like it less"}, "feedback"),
        ({"vote": "up"}, "vote"),
        ({"state": "rejected"}, "state"),
        ({"meta": {"label": 0}}, "meta.label"),
    ],
)
def test_a_mark_of_which_nobody_knows_the_meaning_is_refused(mark: dict[str, Any], name: str) -> None:
    said = f'message field "{name}" may say how good the answer is; remove it, or give a column `label`'
    assert reasons(mark)[0] == {said: 1}
    with pytest.raises(UserError, match="may say how good the answer is"):
        Preferences.from_rows([{"messages": conversation(mark)}] * 3)


def test_ordinary_fields_of_an_answer_are_noted() -> None:
    assert reasons({"id": "x7", "tokens": 12}) == (
        {},
        {f'message field "{n}" is not read': 1 for n in ("id", "tokens")},
    )


def test_scores_of_the_sides_of_a_pair_are_no_verdict() -> None:
    row = {"prompt": "q", "chosen": conversation({"score": 4})[1:], "rejected": [{"role": "assistant", "content": "b"}]}
    assert Preferences.from_rows([row]).report.kept == 1


def test_arguments_of_a_call_are_no_verdict() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"score": 1, "ok": False}}}
    assert reasons({"content": None, "tool_calls": [call]}) == ({}, {})


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"label": False}, {"rating": 1}])
def test_earlier_answers_that_are_not_to_be_learned_are_left_out_of_all_turns(mark: dict[str, Any]) -> None:
    rows = [{"messages": conversation({}, mark, {})}]
    every = Preferences.from_rows(rows, train_on="all").as_demonstrations()
    assert [row["chosen"][0]["content"] for row in every] == ["a0", "a2"]
    last = Preferences.from_rows(rows).as_demonstrations()
    assert [row["chosen"][0]["content"] for row in last] == ["a2"]


def test_a_mark_does_not_make_another_prompt() -> None:
    marked = Preferences.from_rows([{"messages": conversation({"weight": 0}, {})}])[0]
    plain = Preferences.from_rows([{"messages": conversation({}, {})}])[0]
    assert marked["prompt_id"] == plain["prompt_id"] == prompt_key(plain["prompt"])


def test_a_bad_instance_of_an_instruction_is_rejected() -> None:
    instances = [{"input": "", "output": "a", "label": label} for label in (True, False)]
    rows = [{"instruction": f"Add {i}.", "instances": instances[i : i + 1]} for i in range(2)]
    _, report = read(rows)
    assert (report.kept, report.rejected) == (1, {"the answer is marked label=false: a bad one": 1})


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("label", True, False), ("score", 9, 1), ("is_toxic", False, True), ("rank", 1, 2)]
)
def test_marks_of_the_sides_that_contradict_them_reject_the_pair(name: str, good: Any, bad: Any) -> None:
    def pair(first: Any, second: Any) -> dict[str, Any]:
        sides = zip(("chosen", "rejected"), (first, second), "ab", strict=True)
        return {"prompt": "q"} | {side: [{"role": "assistant", "content": c, name: mark}] for side, mark, c in sides}

    _, report = read([pair(good, bad), pair(bad, good), pair(good, good)])
    assert report.rejected == {f'message field "{name}" says that the rejected side is the better one': 1}


@pytest.mark.parametrize("name", ["context", "documents", "attachments", "zz"])
def test_texts_beside_the_content_of_a_prompt_reject_the_row(name: str) -> None:
    text = "The bridge was built a long time ago"
    value: Any = {"documents": [text], "attachments": [{"text": text}]}.get(name, text)
    turns = conversation({}) + conversation({})
    asked = [{**turns[0], name: value}, turns[1]]
    _, report = read([{"messages": turns[:2]}, {"messages": asked}])
    (reason,) = report.rejected
    assert reason.startswith(f'field "{name}')
    assert reason.endswith("of a user's message may be a part of the prompt; put it in the text, or remove it")


def test_ordinary_fields_of_a_question_are_noted() -> None:
    """WildChat has these."""
    fields = {
        "country": "United States",
        "hashed_ip": "ab" * 20,
        "header": {"user-agent": "Mozilla/5.0 (X11; Linux) and more"},
    }
    turns = conversation({})
    _, report = read([{"messages": [{**turns[0], **fields, "redacted": False}, turns[1]]}])
    assert (report.kept, report.rejected) == (1, {})
