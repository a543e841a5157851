"""Messages: kinds of values, parts, thoughts, tools and their calls, and what is refused by name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from align.data.load_report import RowError
from align.data.messages import MEDIA, kind, read_messages, read_text, read_tools

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(*messages: Any) -> list[Any]:
    """Return the messages of a prompt; a remark would be an error."""

    def unexpected(remark: str) -> None:
        raise AssertionError(remark)

    return list(read_messages(list(messages), "prompt", unexpected))


def reason(*messages: Any) -> str:
    with pytest.raises(RowError) as error:
        read(*messages)
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


def test_text_is_a_message_without_a_role() -> None:
    assert read_messages("q", "prompt", lambda _: None) == [{"role": None, "content": "q"}]
    for value, name in ((None, "null"), (3, "number"), (b"a", "bytes"), ({}, "object")):
        with pytest.raises(RowError) as error:
            read_messages(value, "prompt", lambda _: None)
        assert str(error.value) == f"prompt is not text or messages (is a {name})"


def test_text_can_be_encoded() -> None:
    assert read_text("é\n", "answer") == "é\n"
    for value, said in (("a\0", "NUL character"), ("\ud800", "lone surrogate"), (3, "content is not text")):
        with pytest.raises(RowError, match=said):
            read_text(value, "answer")


@pytest.mark.parametrize("value", [None, [], "", {}, 0, "x", [1]])
def test_fields_of_a_message_that_say_something_are_noted(value: object) -> None:
    said = value not in (None, [], "", {})
    for message in ({**USER, "name": value}, {**ANSWER, "mood": value}, {**ANSWER, "tool_call_id": value}):
        found: list[str] = []
        read_messages([message], "prompt", found.append)
        assert found == [f'message field "{list(message)[-1]}" is not read'] * said


@pytest.mark.parametrize("field", ["thinking", "reasoning_content", "reasoning"])
def test_thoughts_of_an_assistant_have_three_names(field: str) -> None:
    assert read({**ANSWER, field: "t"}) == [{**ANSWER, "thinking": "t"}]
    assert read({**ANSWER, field: None}) == [ANSWER]
    assert reason({**ANSWER, field: ["t"]}) == "content is not text (prompt: is a list)"
    found: list[str] = []
    assert read_messages([{**USER, field: "t"}], "prompt", found.append) == [USER]
    assert found == [f'message field "{field}" is not read']


def test_a_tool_has_its_name_and_the_call_that_it_answers() -> None:
    turn = {"role": "tool", "content": "4", "name": "add", "tool_call_id": "c1"}
    assert read(turn) == [turn]
    assert read({**turn, "name": None, "tool_call_id": ""}) == [{"role": "tool", "content": "4"}]
    assert reason({**turn, "name": 3}) == "content is not text (prompt: is a number)"


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "é"}}}


@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        json.dumps([CALL]),
        CALL,
        [CALL["function"]],
        [{"function": {"name": "add", "arguments": '{"a": 2, "b": "é"}'}}],
        [{"index": 0, "id": None, "function": {"name": "add", "arguments": {"a": 2, "b": "é", "c": None}}}],
    ],
)
def test_calls_have_one_shape(calls: object) -> None:
    """A list, its text as JSON, or one call; arguments as an object or as text; null fields are Arrow's."""
    written = '[{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "é"}}}]'
    assert read({**ANSWER, "tool_calls": calls}) == [{**ANSWER, "tool_calls": written}]


def test_calls_keep_their_ids_and_may_stand_without_content() -> None:
    call = {"id": "c1", "function": {"name": "now", "arguments": None}}
    written = '[{"type": "function", "function": {"name": "now", "arguments": {}}, "id": "c1"}]'
    expected = {"role": "assistant", "content": "", "tool_calls": written}
    assert read({"role": "assistant", "tool_calls": [call]}) == [expected]
    assert read({"role": "assistant", "content": None, "tool_calls": [call]}) == [expected]
    assert read({**ANSWER, "tool_calls": []}) == [ANSWER]


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ("{not JSON", "tool_calls is not JSON (prompt: tool_calls)"),
        ([3], "tool_calls is not a list of objects (prompt: tool_calls)"),
        ([{"arguments": {}}], "tool call without a function's name (prompt)"),
        ([{"function": "add"}], "tool call without a function's name (prompt)"),
        (
            [{"name": "add", "arguments": "{"}],
            "arguments of a tool call is not JSON (prompt: arguments of a tool call)",
        ),
        ([{"name": "add", "arguments": [1]}], "arguments of a tool call are not an object (prompt)"),
        ([{"name": "add\0"}], None),
    ],
)
def test_calls_that_are_refused(calls: object, said: str | None) -> None:
    message = {**ANSWER, "tool_calls": calls}
    if said is None:  # JSON writes NUL as an escape, which no tokenizer minds
        assert read(message)[0]["tool_calls"].count("\\u0000") == 1
    else:
        assert reason(message) == said


def test_tools_are_json_of_functions() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "number", "enum": None}}}}
    written = '[{"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "number"}}}}]'
    assert read_tools([tool]) == read_tools(json.dumps([tool])) == read_tools(tool) == written
    assert read_tools([{"name": "add"}]) == '[{"name": "add"}]'
    assert [read_tools(empty) for empty in (None, [], "", {})] == [None] * 4
    refused = (("[", "tools is not JSON"), ([{}], "tool without a function's name"), ([1], "not a list of objects"))
    for value, said in refused:
        with pytest.raises(RowError, match=said):
            read_tools(value)


@pytest.mark.parametrize("media", MEDIA)
def test_images_video_and_sound_are_refused(media: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": media}]
    said = f"images, video and sound cannot be read (prompt: {media})"
    assert reason({"role": "user", "content": parts}) == said


@pytest.mark.parametrize(
    ("content", "joined"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": "a"}, {"type": "map"}], None),
        ([{"type": "text", "text": 3}], None),
        ([{"type": "text"}], None),
        (["a"], None),
        ({"type": "text", "text": "a"}, None),
    ],
)
def test_parts_of_a_message_are_joined_if_all_are_text(content: object, joined: str | None) -> None:
    message = {"role": "user", "content": content}
    if joined is None:
        assert reason(message).startswith("content is not text (prompt: is a ")
    else:
        assert read(message) == [{"role": "user", "content": joined}]
