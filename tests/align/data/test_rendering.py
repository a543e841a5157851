"""Rendered text, letter by letter: marks, what the template adds, and what a conversation shares with its prompt."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from align.data.encoding import encode_prompt
from align.data.load_report import RowError
from align.data.rendering import (
    ANSWER_CHANGED,
    MARKS,
    MarkedText,
    Rendered,
    Turn,
    any_of,
    chat_template,
    render_conversation,
    render_plain,
    shared_length,
)
from align.errors import UserError

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TO_MARK = any_of(["<|im_end|>", *MARKS])


def mark(number: int) -> str:
    return f"\ue000{number}\ue001"


@pytest.fixture
def templated(chatml: Any) -> Any:
    def make(template: str) -> Any:
        tokenizer = copy.deepcopy(chatml)
        tokenizer.chat_template = template
        return tokenizer

    return make


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def conversation(tokenizer: Any, messages: Sequence[Any], *responses: str | list[int], rest: str = "\n") -> Rendered:
    return render_conversation(
        tokenizer,
        messages,
        [said(one) if isinstance(one, str) else one for one in responses],
        tools=None,
        to_mark=TO_MARK,
        rest=rest,
    )


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["<a>", "<a>b"], ["<a>b", "<a>"]),
        (["<a>b", "<a>"], ["<a>b", "<a>"]),
        (["b"], ["b", "b"]),
        (["."], []),
        ([], []),
    ],
)
def test_the_longest_of_several_texts_is_found(texts: list[str], found: list[str]) -> None:
    assert any_of(texts).findall("<a>b<a>cb") == found


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        *(("", "", 0), ("abc", "abd", 2), ("ab", "abc", 2), ("abc", "ab", 2), ("abc", "abc", 3), ("xbc", "abc", 0)),
        *(([1, 2, 3], [1, 2, 4], 2), ([1], [1, 2], 1), ([], [1], 0)),
    ],
)
def test_common_beginnings(first: Any, second: Any, length: int) -> None:
    assert shared_length(first, second) == length


def test_marks_are_replaced_by_their_number() -> None:
    marked = MarkedText("", [f"<{n}>" for n in range(12)])
    assert marked.restored(f"a{mark(1)}b{mark(11)}{mark(0)}") == "a<1>b<11><0>"
    assert marked.restored("\ue000a") == "\ue000a"


def test_plain_text_and_its_marks() -> None:
    prompt, end = {"role": None, "content": "p<|im_end|>"}, "<|im_end|>"
    found = render_plain([prompt], [said("r<|im_end|>s"), [7, 8], said("t")], tools=None, to_mark=TO_MARK)
    assert found == Rendered(
        MarkedText(f"p{mark(0)}", [end]),
        [
            MarkedText(f"p{mark(0)}r{mark(1)}s", [end, end]),
            [7, 8],
            MarkedText(f"p{mark(0)}t", [end]),
        ],
        [MarkedText(f"r{mark(0)}s", [end]), MarkedText("", []), MarkedText("t", [])],
    )


def test_a_conversation_and_its_marks(chatml: Any) -> None:
    end = "<|im_end|>"
    turns = [{"role": "system", "content": "s<|im_end|>"}, {"role": None, "content": "\ue000<|im_end|>"}]
    found = conversation(chatml, turns, "a", [5, 6], f"{end}b")
    asked = (
        f"<|im_start|>system\ns{mark(0)}<|im_end|>\n<|im_start|>user\n{mark(1)}{mark(2)}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    before = [end, "\ue000", end]
    assert found == Rendered(
        MarkedText(asked, before),
        [
            MarkedText(f"{asked}a<|im_end|>", before),
            [5, 6],
            MarkedText(f"{asked}{mark(3)}b<|im_end|>", [*before, end]),
        ],
    )
    assert conversation(chatml, [USER], "a", rest="").wholes == [
        MarkedText("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n", [])
    ]


UPPER = "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}"
TRIM = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"
CUT = "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}A:{% endif %}"


@pytest.mark.parametrize(
    ("template", "answers", "remarks"),
    [
        (UPPER, ["a"], (ANSWER_CHANGED,)),
        (UPPER, ["A"], ()),
        (UPPER, ["A", "a", "b"], (ANSWER_CHANGED,)),
        (TRIM, [" a \n"], ()),
        (TRIM, ["a"], ()),
    ],
)
def test_a_changed_answer_is_remarked_once(
    template: str, answers: list[str], remarks: tuple[str, ...], templated: Any
) -> None:
    assert conversation(templated(template), [USER], *answers).remarks == remarks


def test_only_another_end_of_the_prompt_may_be_cut(templated: Any) -> None:
    """A prompt may end otherwise before an answer; the messages before must be the same."""
    found = conversation(templated(CUT), [USER], "a", rest="")
    assert (found.prompt.text, found.wholes) == ("[q]A:", [MarkedText("[q][a]", [])])
    counting = "{{ messages | length }}" + CUT
    with pytest.raises(RowError, match="renders the messages of the prompt otherwise before an answer"):
        conversation(templated(counting), [USER], "a")
    assert conversation(templated(counting), [USER], [1]).wholes == [[1]]  # what was drawn is not rendered


NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}.{% endfor %}{% if add_generation_prompt %}>>{% endif %}!"
)


@pytest.mark.parametrize(
    ("template", "tail", "structure"),
    [
        (CUT, "]", "[align0probe0align]A:]"),
        (NEEDS_SYSTEM, ".!", "<system>align0probe0align.<user>align0probe0align.>>!.!"),
        ("{{ raise_exception('no') }}", "", ""),
        ("{% for m in messages %}{{ m.role }};{% endfor %}", "", "user;"),
    ],
)
def test_what_a_template_writes_around_an_answer(template: str, tail: str, structure: str, templated: Any) -> None:
    assert Turn.of(templated(template)) == Turn(tail, structure)


ALL = (
    "{{ tools | tojson }}{{ documents is none }}{{ eos_token }}{{ bos_token is defined }}"
    "{% for m in messages %}{{ m | tojson }}|{% endfor %}{{ add_generation_prompt }}"
)


def test_a_template_sees_what_transformers_shows_it(templated: Any) -> None:
    """All fields of a message in the same order, and the same variables."""
    tokenizer = templated(ALL)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": [1, None, 2.5]}}}
    turns = [
        {"role": "system", "content": "s", "name": "n"},
        {**USER, "tool_calls": None},
        {**said("a"), "thinking": "t", "reasoning_content": "t", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
    ]
    given = [
        {**turn, "tool_calls": json.dumps(turn["tool_calls"])} if turn.get("tool_calls") else turn for turn in turns
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "d"}}]
    found = render_conversation(tokenizer, given, [said("b")], tools=json.dumps(tools), to_mark=TO_MARK, rest="")
    asked = tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*turns, said("b")], tools=tools, tokenize=False)
    assert (found.prompt.text, found.wholes) == (asked, [MarkedText(whole, [])])


def test_a_tokenizer_that_renders_conversations_itself_is_asked(chatml: Any) -> None:
    class Own(PreTrainedTokenizerFast):
        def apply_chat_template(self, conversation: Any, **_: Any) -> str:
            return "".join(f"<{turn['content']}>" for turn in conversation)

    own = copy.copy(chatml)
    own.__class__ = Own
    found = conversation(own, [USER], "a", rest="")
    assert (found.prompt.text, found.wholes) == ("<q>", [MarkedText("<q><a>", [])])


def test_a_template_of_a_file_loses_one_line_break(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text(" {{ messages }} \n\n", encoding="utf-8")
    assert chat_template(str(tmp_path / "a.jinja")) == " {{ messages }} \n"
    assert chat_template("hh").startswith("{#-")


def test_text_behind_a_control_token_has_no_dummy_blank(unigram: Any) -> None:
    """Where special text in a message makes it be encoded in pieces; only the beginning has the tokenizer's blank."""
    tokenizer = copy.deepcopy(unigram)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "in</s>it"}, ANSWER, {"role": "user", "content": "hi"}])
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["▁", *"in</s>it", "<|im_end|>", "a", "<|im_end|>", *"hi", "<|im_end|>"]


def test_chat_template_from_a_file_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages }}\n")
    assert chat_template(tmp_path / "mine.jinja") == "{{ messages }}"
    with pytest.raises(UserError, match=r'bundled template \(chatml, hh\).*Did you mean "chatml"'):
        chat_template("chatmll")
