"""Conversations through chat templates: every trained turn has the ids that transformers renders, and no other has."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import pytest
from jinja2 import TemplateError

from align.data import Preferences, tokenize
from tests.align.data.published_templates import TEMPLATES, template_tokenizer
from tests.align.data.tool_templates import TOOL_TEMPLATES

ALL = TEMPLATES | TOOL_TEMPLATES
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Of it.", "parameters": {"type": "object"}}}
    for name in ("time_in", "weather")
]


def turn(role: str, content: str, **fields: Any) -> dict[str, Any]:
    """A turn; thoughts under both names that templates read."""
    if thoughts := fields.get("thinking"):
        fields["reasoning_content"] = thoughts
    return {"role": role, "content": content, **fields}


def call(name: str, number: int, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, "id": f"abcdefgh{number}"}


def result(content: str, name: str, number: int) -> dict[str, Any]:
    return turn("tool", content, name=name, tool_call_id=f"abcdefgh{number}")


SYSTEM, USER, MORE, LAST = (
    turn("system", "Be kind."),
    *(turn("user", content) for content in ("What is the time?", " And now?\n", "At last?")),
)
FOUR, FIVE, SIX = (turn("assistant", content) for content in ("It is four.", "Five, I think", "Six at\nmost."))
CALLS, AGAIN = (
    turn("assistant", "", tool_calls=[call("time_in", number, place=place, exact=True)])
    for number, place in ((1, "Ulm"), (2, "Bonn"))
)
BOTH = turn(
    "assistant",
    "Both.",
    tool_calls=[call("time_in", 2, place="Ulm"), call("weather", 3, place="Rome", at=[1, {"x": 2.5}])],
)
RESULT, RAIN = result('{"hour": 4}', "time_in", 1), result('"rain"', "weather", 3)
THOUGHT = turn("assistant", "It is four.", thinking="The clock says\nso.")

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[Any] | None]] = {
    "one turn": ([USER, FOUR], None),
    "several turns": ([USER, FOUR, MORE, FIVE, LAST, SIX], None),
    "a system turn": ([SYSTEM, USER, FOUR], None),
    "a system turn and several": ([SYSTEM, USER, FOUR, MORE, FIVE], None),
    "a system turn in between": ([USER, FOUR, SYSTEM, MORE, FIVE], None),
    "two users": ([USER, MORE, FOUR, LAST, FIVE], None),
    "thoughts": ([USER, THOUGHT], None),
    "thoughts in every turn": ([USER, THOUGHT, MORE, turn("assistant", "Five.", thinking="Once more.")], None),
    "tools that are not called": ([USER, FOUR, MORE, FIVE], TOOLS),
    "tools and a system turn": ([SYSTEM, USER, FOUR], TOOLS),
    "the answer is a call": ([USER, CALLS], TOOLS),
    "a call and its result": ([USER, CALLS, RESULT, FOUR], TOOLS),
    "calls in several turns": ([USER, CALLS, RESULT, FOUR, MORE, AGAIN, RESULT, FIVE], TOOLS),
    "two calls at once": ([USER, BOTH, RESULT, RAIN, FOUR], TOOLS),
    "thoughts before a call": ([USER, {**CALLS, **THOUGHT, "content": ""}, RESULT, FOUR], TOOLS),
    "calls without tools": ([USER, CALLS, RESULT, FOUR], None),
}


def expected(
    tokenizer: Any, end: str | None, before: list[Any], answer: Any, tools: Any
) -> tuple[list[int], list[int]] | str:
    """The ids of a prompt and its answer up to the end of turn by transformers; or the reason that a row is refused."""

    def rendered(messages: list[Any], functions: Any = tools, *, asked: bool = False) -> Any:
        return tokenizer.apply_chat_template(messages, functions, tokenize=False, add_generation_prompt=asked)

    try:
        asked, whole = rendered(before, asked=True), rendered([*before, answer])
        shown = rendered(before)
        without = rendered(before, None, asked=True)
    except (TemplateError, TypeError, KeyError):
        return "chat template"
    if tools and without == asked:
        return "no place for tools"
    if any(f'"{place}"' not in asked for place in places(before)):
        return "no place for tool calls"
    if not whole.startswith(asked) and not whole.startswith(common(asked, shown)):
        return "otherwise before an answer"
    if answer.get("thinking", "") not in whole:
        return "no place for the thoughts"
    if any(f'"{place}"' not in whole for place in places([answer])):
        return "no place for tool calls"
    options: dict[str, Any] = {"tools": tools, "tokenize": True, "return_dict": False}
    ids = tokenizer.apply_chat_template([*before, answer], **options)
    prompt = common(tokenizer.apply_chat_template(before, add_generation_prompt=True, **options), ids)
    if end is None:
        return prompt, [*ids[len(prompt) :], tokenizer.eos_token_id]
    ends = tokenizer.convert_tokens_to_ids([end, "<|call|>"])
    length = max(place for place, token in enumerate(ids, 1) if token in ends)
    return prompt, ids[len(prompt) : length]


def places(messages: list[Any]) -> list[str]:
    """The places that calls ask for, which stand nowhere else."""
    return [one["function"]["arguments"]["place"] for message in messages for one in message.get("tool_calls", ())]


def common(first: Any, second: Any) -> Any:
    """The common beginning of two texts or lists."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return first[: len(list(pairs))]


@pytest.mark.parametrize("train_on", ["last", "all"])
@pytest.mark.parametrize("name", ALL)
def test_each_trained_turn_of_a_demonstration(name: str, train_on: Literal["last", "all"]) -> None:
    template, end = ALL[name]
    tokenizer = template_tokenizer(template)
    rows = [{"messages": messages, "tools": tools} for messages, tools in CONVERSATIONS.values()]
    data = Preferences.from_rows(rows, train_on=train_on, max_rejected=1.0)
    assert len(data) == len(rows)
    tokenized = tokenize(data, tokenizer, max_length=3000, unit="demonstration")
    made = dict(zip(tokenized.rows.tolist(), tokenized, strict=True))
    problems = tokenized.table["problem"]
    trained = [
        (messages[:i], messages[i], tools)
        for messages, tools in CONVERSATIONS.values()
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and (train_on == "all" or i == len(messages) - 1)
    ]
    assert len(problems) == len(trained)
    for number, (before, answer, tools) in enumerate(trained):
        ids = expected(tokenizer, end, before, answer, tools)
        if isinstance(ids, str):
            assert ids in (problems[number] or ""), (before, answer)
            continue
        assert problems[number] is None, (before, answer)
        assert (made[number].prompt_ids, *made[number].responses) == ids
        shown = tokenizer.decode(ids[1])
        assert not any(turn["content"] and turn["content"] in shown for turn in before)


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
@pytest.mark.parametrize("before", [[USER], [USER, CALLS, RESULT], [USER, FOUR, MORE, AGAIN, RESULT]], ids=len)
def test_both_sides_of_a_pair_with_tools(name: str, before: list[Any]) -> None:
    """One side is an answer, the other another call."""
    template, end = TOOL_TEMPLATES[name]
    tokenizer = template_tokenizer(template)
    other = turn("assistant", "", tool_calls=[call("weather", 4, place="Ulm")])
    rows = [{"prompt": before, "chosen": [SIX], "rejected": [other], "tools": TOOLS}]
    (example,) = tokenize(Preferences.from_rows(rows), tokenizer, max_length=3000)
    sides = [expected(tokenizer, end, before, side, TOOLS) for side in (SIX, other)]
    assert not any(isinstance(side, str) for side in sides)
    wholes = [[*side[0], *side[1]] for side in sides]
    assert [[*example.prompt_ids, *response] for response in example.responses] == wholes
    assert example.prompt_ids == common(sides[0][0], sides[1][0])
