"""One row: every column, every remark, and the limits of each check."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

from align.data.load_report import RowError
from align.data.schema import COLUMNS, ROLES, arrow_schema, prompt_key
from align.data.validation import kind, valid_row

ROW: dict[str, Any] = {"prompt": "q", "chosen": "a", "rejected": "b"}
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def plain(content: str) -> list[dict[str, Any]]:
    return [{"role": None, "content": content}]


def checked(**fields: Any) -> dict[str, Any]:
    """Return the valid row of these fields; a remark would be an error."""

    def unexpected(remark: str) -> None:
        raise AssertionError(remark)

    return dict(valid_row({**ROW, **fields}, unexpected))


def remarks(**fields: Any) -> list[str]:
    found: list[str] = []
    valid_row({**ROW, **fields}, found.append)
    return found


def reason(**fields: Any) -> str:
    with pytest.raises(RowError) as error:
        checked(**fields)
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((None, "null"), (True, "flag"), (0, "number"), (0.5, "number"), ("", "text"), ({}, "object")),
        *(([], "messages"), ([{}], "messages"), (({},), "messages"), ([{}, "a"], "list"), (["a"], "list")),
        *((b"a", "bytes"), ({1}, "set"), (SimpleNamespace(), "SimpleNamespace")),
    ],
)
def test_kinds_of_values(value: object, name: str) -> None:
    assert kind(value) == name


def test_every_column_reaches_its_place() -> None:
    fields = {
        **{"chosen_score": 2.5, "rejected_score": 1, "margin": 3, "weight": 0},
        **{"prompt_id": "p", "ranking": "r", "tools": '[{"name": "f"}]', "answer": "x", "source": "s"},
        **{"chosen_drawn": [0], "rejected_drawn": [5, 2**31 - 1], "drawn_with": "f"},
    }
    sides = {"prompt": plain("q"), "chosen": plain("a"), "rejected": plain("b")}
    assert checked(**fields) == {**sides, **fields}
    assert tuple(checked(**fields)) == COLUMNS
    bare = dict.fromkeys(COLUMNS) | {"prompt": plain("q"), "prompt_id": prompt_key(plain("q"))}
    assert checked(chosen=None, rejected=None) == bare
    assert dict(valid_row({"prompt": "q"}, lambda _: None)) == bare


@pytest.mark.parametrize("name", ["prompt_id", "answer", "source", "drawn_with"])
def test_labels_are_texts_or_numbers(name: str) -> None:
    for value, label in ((7, "7"), (2.5, "2.5"), ("", ""), ("é", "é")):
        if value or name != "prompt_id":
            assert checked(**{name: value})[name] == label
    assert reason(**{name: True}) == f"{name} is not text (is a flag)"
    assert reason(**{name: {"a": 1}}) == f"{name} is not text (is a object)"
    assert reason(**{name: "a\0"}) == f"NUL character ({name})"
    assert reason(**{name: "\ud800"}) == f"lone surrogate ({name})"


def test_without_a_prompt_id_it_is_the_hash_of_the_prompt() -> None:
    for empty in ({}, {"prompt_id": None}, {"prompt_id": ""}):
        assert checked(**empty)["prompt_id"] == prompt_key(plain("q"))
    # Of the prompt as it is kept, as a user turn beside messages.
    assert checked(chosen=[ANSWER])["prompt_id"] == prompt_key([USER])


@pytest.mark.parametrize("name", ["chosen_drawn", "rejected_drawn"])
@pytest.mark.parametrize("ids", [[], [-1], [2**31], [True], [1.0], ["1"], "12", (1, 2), 3, [1, None]])
def test_drawn_ids_are_whole_numbers_of_a_vocabulary(name: str, ids: object) -> None:
    assert reason(**{name: ids}) == f"{name} is not a list of token ids"


@pytest.mark.parametrize("name", ["chosen_score", "rejected_score", "margin", "weight"])
def test_scores_are_finite_numbers(name: str) -> None:
    assert checked(**{name: 0})[name] == 0
    assert type(checked(**{name: 2})[name]) is float
    for value in (float("nan"), float("inf"), 10**400):
        assert reason(**{name: value}) == f"{name} is not finite"
    assert checked(**{name: "0"})[name] == 0  # a cell of CSV is text
    assert reason(**{name: "x"}) == f'{name} is not a number (is "x")'
    assert reason(**{name: True}) == f"{name} is not a number (is true)"
    if name == "weight":
        assert reason(weight=-0.5) == "negative weight (-0.5)"
    elif name == "margin":
        assert remarks(margin=-0.5) == ["the margin is negative"]
    else:
        assert checked(**{name: -0.5})[name] == -0.5


@pytest.mark.parametrize(
    ("fields", "prompt", "chosen", "rejected"),
    [
        ({"prompt": [USER]}, [USER], [ANSWER], [{**ANSWER, "content": "b"}]),
        ({"chosen": [ANSWER]}, [USER], [ANSWER], [{**ANSWER, "content": "b"}]),
        ({"rejected": [{**ANSWER, "content": "b"}]}, [USER], [ANSWER], [{**ANSWER, "content": "b"}]),
        ({"chosen": [ANSWER], "rejected": None}, [USER], [ANSWER], None),
        ({"chosen": None, "rejected": [ANSWER]}, [USER], None, [ANSWER]),
        ({"prompt": [USER], "chosen": None, "rejected": None}, [USER], None, None),
    ],
)
def test_one_side_in_messages_makes_all_messages(fields: Any, prompt: Any, chosen: Any, rejected: Any) -> None:
    row = checked(**fields)
    assert (row["prompt"], row["chosen"], row["rejected"]) == (prompt, chosen, rejected)


@pytest.mark.parametrize("first", ROLES)
def test_roles_of_a_prompt_stay(first: str) -> None:
    turns = [{"role": first, "content": "x"}, ANSWER, {"role": "tool", "content": "y"}, ANSWER, USER]
    found = valid_row({**ROW, "prompt": turns}, lambda _: None)["prompt"]
    assert found == turns


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("user", None),
        ("tool", None),
        ("assistant", "prompt ends with an assistant turn"),
        ("system", "prompt does not end with a user turn (ends with system)"),
        ("developer", "prompt does not end with a user turn (ends with developer)"),
    ],
)
def test_who_may_have_the_last_word_of_a_prompt(last: str, expected: str | None) -> None:
    turns = [USER, ANSWER, {"role": last, "content": "y"}]
    if expected is None:
        assert checked(prompt=turns)["prompt"] == turns
    elif last == "assistant":
        with pytest.raises(RowError, match=expected):
            valid_row({**ROW, "prompt": turns}, lambda _: None)
    else:
        assert reason(prompt=turns) == expected


@pytest.mark.parametrize("role", ROLES)
def test_only_turns_of_users_and_assistants_must_say_something(role: str) -> None:
    blank = [USER, {**ANSWER, "content": "x"}, {"role": role, "content": " "}, {**ANSWER, "content": "z"}, USER]
    if role in ("user", "assistant"):
        with pytest.raises(RowError, match="empty turn in the prompt"):
            valid_row({**ROW, "prompt": blank}, lambda _: None)
    else:
        assert checked(prompt=blank)["prompt"] == blank


@pytest.mark.parametrize(
    ("roles", "noted"),
    [
        (["user", "user"], 1),
        (["user", "assistant", "assistant", "user"], 1),
        (["user", "user", "user"], 2),
        (["system", "system", "user"], 0),
        (["user", "assistant", "tool", "tool"], 0),
        (["user", "assistant", "user"], 0),
    ],
)
def test_consecutive_turns_of_a_user_or_an_assistant_are_noted(roles: list[str], noted: int) -> None:
    turns = [{"role": role, "content": "x"} for role in roles]
    assert remarks(prompt=turns) == ["consecutive turns of one role"] * noted


@pytest.mark.parametrize("value", [None, [], "", 0, "x", {}, [1]])
def test_fields_of_a_message_that_say_something_are_noted(value: object) -> None:
    said = value not in (None, [], "", {})
    for fields in ({"prompt": [{**USER, "name": value}]}, {"chosen": [{**ANSWER, "name": value}]}):
        assert remarks(**fields) == ['message field "name" is not read'] * said


@pytest.mark.parametrize(
    ("content", "joined"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": 3}], None),
        ([{"type": "text"}], None),
        (["a"], None),
        ({"type": "text", "text": "a"}, None),
    ],
)
def test_parts_of_a_message_are_joined_if_all_are_text(content: object, joined: str | None) -> None:
    message = {"role": "user", "content": content}
    if joined is None:
        assert reason(prompt=[message]).startswith("content is not text (prompt: is a ")
    else:
        assert checked(prompt=[message])["prompt"] == [{"role": "user", "content": joined}]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (" \t\n\u00a0\u3000", "white-space-only"),
        ("\u200b", "invisible"),
        ("\x01\x1f", "invisible"),
        (" \u3164 \u200b", "invisible"),
        *((invisible, "invisible") for invisible in "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"),
        ("\u200b.", ""),
        (" a ", ""),
        ("\u0301", ""),
        ("🦊", ""),
    ],
)
def test_blank_texts(text: str, word: str) -> None:
    if not word:
        assert checked(chosen=text)["chosen"] == plain(text)
        return
    assert reason(chosen=text) == f"{word} chosen"
    assert reason(rejected=text) == f"{word} rejected"
    assert reason(chosen=text, rejected=text) == f"{word} chosen and rejected"
    assert reason(prompt=text) == ("invisible prompt" if word == "invisible" else "empty prompt")


def test_of_two_blank_responses_of_different_kinds_the_first_is_named() -> None:
    assert reason(chosen=" ", rejected="") == "white-space-only chosen"
    assert reason(chosen="", rejected=" ") == "empty chosen"


def test_responses_that_differ_in_blanks_alone_are_two() -> None:
    assert checked(chosen="b ", rejected="b")["chosen"] == plain("b ")
    assert reason(chosen="b", rejected="b") == "identical pair"
    assert reason(chosen=[{**ANSWER, "content": "b"}], rejected="b") == "identical pair"
    assert checked(chosen="q")["chosen"] == plain("q")


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_response_is_one_message_of_an_assistant(side: str) -> None:
    assert reason(**{side: [USER]}) == f"{side} is not one assistant message (user)"
    assert reason(**{side: [USER, ANSWER]}) == f"{side} is not one assistant message (user, assistant)"
    assert reason(**{side: [{**USER, "role": "tool"}]}) == f"{side} is not one assistant message (tool)"
    assert reason(**{side: []}) == f"{side} has no message"
    assert reason(**{side: {"role": "assistant"}}) == f"{side} is not text or messages (is a object)"
    assert reason(**{side: b"a"}) == f"{side} is not text or messages (is a bytes)"


def test_the_key_of_a_prompt_is_a_hash_of_its_roles_and_contents() -> None:
    turns = [{"role": "system", "content": "é"}, {"role": "user", "content": "q"}]
    text = json.dumps([["system", "é"], ["user", "q"]])
    assert text == '[["system", "\\u00e9"], ["user", "q"]]'
    assert prompt_key(turns) == hashlib.sha256(text.encode()).hexdigest()[:16]
    others = [turns[:1], turns[1:], turns[::-1], [{**turns[0], "role": "user"}, turns[1]], plain("q"), [USER]]
    assert len({prompt_key(turns), *map(prompt_key, others)}) == 6
    assert prompt_key(turns[1:]) == prompt_key([USER])


def test_types_of_the_columns() -> None:
    schema = arrow_schema()
    assert schema.names == [*COLUMNS, "place"]
    messages = "list<item: struct<role: string, content: string, thinking: string, tool_calls: string, name: string, "
    messages += "tool_call_id: string, weight: string>>"
    types = dict.fromkeys((*COLUMNS, "place"), "string")
    types |= dict.fromkeys(("prompt", "chosen", "rejected"), messages)
    types |= dict.fromkeys(("chosen_score", "rejected_score", "margin", "weight"), "double")
    types |= dict.fromkeys(("chosen_drawn", "rejected_drawn"), "list<item: int32>")
    assert {name: str(schema.field(name).type) for name in schema.names} == types


@pytest.mark.parametrize(("word", "noted"), [("NULL", 1), (" NaN\n", 1), ("None", 1), ("N/A", 1), ("None of them", 0)])
def test_words_that_tables_write_for_a_missing_value(word: str, noted: int) -> None:
    said = remarks(prompt="q", chosen="a", rejected=word)
    assert said == ["an answer is a word such as NULL or NaN, as tables write a missing value"] * noted


@pytest.mark.parametrize(("answer", "noted"), [("a</s>", 1), ("a<|im_end|>\n", 1), ("a<|eot_id|> b", 0)])
def test_answers_that_end_in_the_marks_of_a_template(answer: str, noted: int) -> None:
    said = remarks(prompt="q", chosen=answer, rejected="b")
    assert said == ["answers end in the marks of a chat template, which are trained as text"] * noted
