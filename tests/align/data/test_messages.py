"""Thoughts, tools and their calls: checked, and rendered as `apply_chat_template` renders them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from align.data.load_report import RowError
from align.data.messages import read_messages, read_tools
from align.data.rendering import any_of, render_conversation, with_values
from align.errors import UserError

QWEN = (  # as Qwen3: tools in the system turn, thoughts in <think>, calls in <tool_call>
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER, CALL = {"role": "user", "content": "q"}, {"name": "f", "arguments": {"x": 1}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def unread(remark: str) -> None:
    raise AssertionError(remark)


def one(**fields: Any) -> dict[str, Any]:
    return dict(read_messages([{"role": "assistant", "content": "a", **fields}], "chosen", unread)[0])


@pytest.mark.parametrize("name", ["thinking", "reasoning_content", "reasoning"])
def test_thoughts_under_each_name(name: str) -> None:
    assert one(**{name: "Hm."}) == {"role": "assistant", "content": "a", "thinking": "Hm."}
    assert one(**{name: None}) == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "calls",
    [
        [{"type": "function", "function": CALL}], [CALL], json.dumps([CALL]),
        [{"function": {"name": "f", "arguments": '{"x": 1}', "unused": None}}],
    ],
)  # fmt: skip
def test_calls_in_each_shape(calls: Any) -> None:
    assert json.loads(one(tool_calls=calls, content=None)["tool_calls"]) == [{"type": "function", "function": CALL}]


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ("f(1)", "tool_calls is not JSON"),
        ([{"function": {"arguments": {}}}], "tool call without a function's name"),
        ([{"name": "f", "arguments": "[1]"}], "arguments of a tool call are not an object"),
        ([{"name": "f", "arguments": "x"}], "arguments of a tool call is not JSON"),
        (["f"], "tool_calls is not a list of objects"),
    ],
)
def test_calls_that_cannot_be_read(calls: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        one(tool_calls=calls)


def test_tools_and_pictures() -> None:
    assert json.loads(read_tools(json.dumps(TOOLS)) or "") == TOOLS
    assert read_tools([]) is None
    with pytest.raises(RowError, match="tool without a function's name"):
        read_tools([{"description": "x"}])
    for part in ("image", "image_url", "input_audio", "video"):
        with pytest.raises(RowError, match=f"images, video and sound cannot be read .prompt: {part}"):
            read_messages(
                [{"role": "user", "content": [{"type": part}, {"type": "text", "text": "q"}]}], "prompt", unread
            )


@pytest.fixture
def templated(chatml: Any) -> Any:
    def make(template: str) -> Any:
        tokenizer = copy.deepcopy(chatml)
        tokenizer.chat_template = template
        return tokenizer

    return make


def rendered(tokenizer: Any, prompt: list[Any], answer: dict[str, Any], tools: Any = None) -> tuple[str, str]:
    """Return the text of the prompt, and of prompt and answer."""
    checked, (response,) = read_messages(prompt, "prompt", unread), read_messages([answer], "chosen", unread)
    found = render_conversation(
        tokenizer, checked, [response], tools=read_tools(tools), to_mark=any_of(["\ue000", "\ue001"]), rest="\n"
    )
    (whole,) = found.wholes
    return found.prompt.text, whole.text  # type: ignore[union-attr]


def test_thoughts_and_calls_are_what_the_template_makes_of_them(templated: Any) -> None:
    tokenizer = templated(QWEN)
    asked = [USER, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}]
    asked += [{"role": "tool", "content": "4", "name": "f"}]
    answer = {"role": "assistant", "content": "It is 4.", "reasoning_content": "Easy."}
    prompt, whole = rendered(tokenizer, asked, answer, TOOLS)
    expected = tokenizer.apply_chat_template([*asked, answer], tools=TOOLS, tokenize=False)
    assert whole == expected.removesuffix("\n")
    assert prompt == tokenizer.apply_chat_template(asked, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert "<think>\nEasy.\n</think>\n\nIt is 4.<|im_end|>" in whole


@pytest.mark.parametrize(
    ("prompt", "answer", "tools", "reason"),
    [
        ([USER], {"content": "a"}, TOOLS, "no place for tools"),
        ([USER], {"content": "a", "thinking": "Hm, hm."}, None, "no place for the thoughts"),
        (
            [USER],
            {"content": "", "tool_calls": [{"name": "look_up", "arguments": {}}]},
            None,
            "no place for tool calls",
        ),
    ],
)
def test_what_a_plain_template_has_no_place_for_is_named(
    prompt: Any, answer: Any, tools: Any, reason: str, templated: Any
) -> None:
    with pytest.raises(RowError, match=reason):
        rendered(templated(CHATML), prompt, {"role": "assistant", **answer}, tools)


def test_variables_of_a_template(templated: Any) -> None:
    set_off = templated(with_values(QWEN, {"enable_thinking": False}))
    for tokenizer, options in ((set_off, {}), (templated(QWEN), {"enable_thinking": False})):
        text = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True, **options)
        assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    with pytest.raises(
        UserError, match=r'enable_thinkin: the chat template does not read it, but .*Did you mean "enable_thinking"'
    ):
        with_values(QWEN, {"enable_thinkin": False})
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        with_values(None, {"x": 1})


@pytest.mark.parametrize(
    ("text", "is_written"),
    [
        ('{"role": "assistant", "content": "a"}', True),
        ("{'from': 'gpt', 'value': 'a'}", True),
        ('{"content": "a", "role": "assistant"}', True),
        ('[{"role": "assistant", "content": "a"}]', True),
        ('{"role": "editor", "name": "Ann"}', False),
        ('{"content": "a"}', False),
        ('{"role": "assistant", "content": "a"', False),
    ],
)
def test_a_message_that_was_written_as_text(text: str, is_written: bool) -> None:
    if is_written:
        with pytest.raises(RowError, match="chosen is messages that were written as text"):
            read_messages(text, "chosen", unread)
    else:
        assert read_messages(text, "chosen", unread) == [{"role": None, "content": text}]
