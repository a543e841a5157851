"""Demonstrations, answers that are good or bad, and prompts, in the layouts of public data sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from align.data import Preferences
from align.errors import UserError
from tests.align.data.formats.tables import Outcome, answered, asked, check, messages, read, sharegpt

SYSTEM, USER, GOOD = ("system", "Be brief."), ("user", "q"), ("assistant", "a")
BEFORE = (("user", "Hi"), ("assistant", "Hello!"))
Table = list[tuple[dict[str, Any], Outcome]]


def by_label(values: list[tuple[Any, str]], label: str, row: dict[str, Any], prompt: Any, answer: Any) -> Table:
    sides = {"chosen": (prompt, answer, None), "rejected": (prompt, None, answer)}
    return [({**row, label: value}, sides.get(side, side)) for value, side in values]


LABELS: list[tuple[Any, str]] = [
    (True, "chosen"), (False, "rejected"), (1, "chosen"), (0, "rejected"), (1.0, "chosen"), (0.0, "rejected"),
    ("True", "chosen"), ("false", "rejected"), ("1", "chosen"), ("0.0", "rejected"),
    ("good", "chosen"), ("BAD", "rejected"), ("yes", "chosen"), ("no", "rejected"), ("chosen", "chosen"),
    ("rejected", "rejected"), ("desirable", "chosen"), ("undesirable", "rejected"), ("win", "chosen"),
    ("lose", "rejected"), (2, "unknown label"), ("so-so", "unknown label"), (-1, "unknown label"),
]  # fmt: skip
NULL = (None, "no kto_tag or label is given")
KTO = [  # TRL, unpaired preferences: label True is desirable
    *by_label(LABELS, "label", {"prompt": "q", "completion": " a"}, "q", " a"),
    *by_label([NULL], "label", {"prompt": "q", "completion": " a"}, "q", " a"),
]
KTO_CHAT = by_label(
    LABELS[:4], "label", {"prompt": messages(USER), "completion": messages(GOOD)}, [USER], [GOOD]
) + by_label(
    [(True, "empty chosen")], "label", {"prompt": messages(USER), "completion": messages(("assistant", ""))}, 0, 0
)
KTO_TAG = by_label(  # LLaMA-Factory: kto_tag true is desirable, false is not
    [*LABELS[:6], NULL], "kto_tag", {"messages": messages(*BEFORE, USER, GOOD)}, [*BEFORE, USER], [GOOD]
)
KTO_SHAREGPT = by_label(
    LABELS[:6], "kto_tag", {"conversations": sharegpt(("human", "q"), ("gpt", "a")), "system": "Be brief."},
    [SYSTEM, USER], [GOOD],
)  # fmt: skip
DEMONSTRATION: Table = [
    ({"prompt": "q", "chosen": "a"}, ("q", "a", None)),
    ({"prompt": "q", "chosen": " a\n"}, ("q", " a\n", None)),
    ({"prompt": "q", "chosen": ""}, "empty chosen"),
    ({"prompt": "q", "chosen": 7}, "chosen is not text or messages"),
    ({"prompt": "", "chosen": "a"}, "empty prompt"),
]
PROMPT_COMPLETION: Table = [
    ({"prompt": "q\n", "completion": "Business<|endoftext|>"}, ("q\n", "Business<|endoftext|>", None)),
    ({"prompt": "q", "completion": " a"}, ("q", " a", None)),
    ({"prompt": "q", "completion": " \n"}, "white-space-only chosen"),
    ({"prompt": None, "completion": "a"}, "prompt is null"),
    ({"prompt": "q", "completion": ["a"]}, "chosen is not text or messages"),
]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]}
MESSAGES: Table = [
    ({"messages": messages(USER, GOOD)}, ([USER], [GOOD], None)),
    ({"messages": messages(SYSTEM, *BEFORE, USER, GOOD)}, ([SYSTEM, *BEFORE, USER], [GOOD], None)),
    ({"messages": messages(USER, GOOD, USER)}, "messages do not end with an assistant turn"),
    ({"messages": []}, "messages do not end with an assistant turn"),
    ({"messages": messages(GOOD)}, "empty prompt"),
    ({"messages": json.dumps(messages(USER, GOOD))}, "column changes type"),
    ({"messages": [*messages(USER), CALL]}, ([USER], [("assistant", "")], None)),
    (
        {"messages": [*messages(USER), CALL, *messages(("tool", "4"), GOOD)]},
        ([USER, ("assistant", ""), ("tool", "4")], [GOOD], None),
    ),
]
SHAREGPT: Table = [  # LLaMA-Factory, sharegpt format with tools
    ({"conversations": sharegpt(("human", "q"), ("gpt", "a")), "id": "1"}, ([USER], [GOOD], None)),
    (
        {
            "conversations": sharegpt(
                ("human", "q"),
                ("function_call", '{"name": "f", "arguments": {"x": 1}}'),
                ("observation", "4"),
                ("gpt", "a"),
            ),
            "id": "2",
        },
        ([USER, ("assistant", ""), ("tool", "4")], [GOOD], None),
    ),
    (
        {"conversations": sharegpt(("human", "q"), ("function_call", '{"name": "f", "arguments": {}}')), "id": "3"},
        ([USER], answered(""), None),
    ),
    ({"conversations": sharegpt(("human", "q"), ("function_call", "f(1)")), "id": "4"}, "tool_calls is not JSON"),
    (
        {"conversations": sharegpt(("human", "q"), ("robot", "a")), "id": "5"},
        "conversations do not end with an assistant turn",
    ),
    ({"conversations": sharegpt(("robot", "q"), ("gpt", "a")), "id": "6"}, "unknown role"),
    (
        {"conversations": sharegpt(("system", "Be brief."), ("user", "q"), ("assistant", "a")), "id": "7"},
        ([SYSTEM, USER], [GOOD], None),
    ),
]
ALPACA: Table = [  # Stanford Alpaca
    ({"instruction": "Add.", "input": "1 1", "output": "2"}, ("Add.\n1 1", "2", None)),
    ({"instruction": "Add.", "input": "", "output": "2"}, ("Add.", "2", None)),
    ({"instruction": "Add.", "input": None, "output": " 2"}, ("Add.", " 2", None)),
    ({"instruction": "Add.", "input": "", "output": ""}, "empty chosen"),
    ({"instruction": "Add.", "input": [1], "output": "2"}, "instruction or input is not text"),
]
SELF_INSTRUCT: Table = [
    (
        {"id": "seed_task_0", "name": "add", "instruction": "Add.", "is_classification": False, "instances": instances},
        outcome,
    )
    for instances, outcome in [
        ([{"input": "1 1", "output": "2"}], ("Add.\n1 1", "2", None)),
        ([{"input": "", "output": "2"}], ("Add.", "2", None)),
        (
            [{"input": "1 1", "output": "2"}, {"input": "2 2", "output": "4"}],
            [("Add.\n1 1", "2", None), ("Add.\n2 2", "4", None)],
        ),
        ([{"input": "1 1"}], "an instance has no output"),
        ("x", "column changes type"),
    ]
]
GSM8K: Table = [  # openai/gsm8k: the solution ends in "#### " and the answer
    ({"question": "q", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}, ("q", "1 + 1 = <<1+1=2>>2\n#### 2", None)),
    ({"question": "q", "answer": "So 1,000.\n#### 1,000"}, ("q", "So 1,000.\n#### 1,000", None)),
    ({"question": "q", "answer": "Two."}, "the solution has no #### answer"),
    ({"question": "q", "answer": "So two.\n#### two"}, "#### is not followed by a number"),
    ({"question": "q", "answer": "\n#### 2"}, "the solution has no steps"),
    ({"question": "q", "answer": "So.\n#### -2.5"}, ("q", "So.\n#### -2.5", None)),
]
INSTRUCTIONS: Table = [  # google/IFEval
    ({"key": i, "prompt": "Write.", "instruction_id_list": ids, "kwargs": arguments}, outcome)
    for i, (ids, arguments, outcome) in enumerate(
        [
            (["punctuation:no_comma"], [{}], ("Write.", None, None)),
            (["a:b", "c:d"], [{"n": 3}, {}], ("Write.", None, None)),
            (["a:b"], [], "instruction_id_list and kwargs are not of one length, at least 1"),
            ([], [], "instruction_id_list and kwargs are not of one length, at least 1"),
            ("a:b", [{}], "instruction_id_list and kwargs are not both lists"),
        ]
    )
]
KTO_ALPACA = [  # LLaMA-Factory, alpaca form
    *by_label([*LABELS[:6], NULL], "kto_tag", {"instruction": "q", "input": "x", "output": "a"}, "q\nx", "a"),
    *by_label([("true", "chosen")], "kto_tag", {"instruction": "q", "input": "", "output": "a"}, "q", "a"),
]
QUESTIONS: Table = [  # MT-Bench: the second question is about the first answer
    ({"question_id": 81, "category": "writing", "turns": turns}, outcome)
    for turns, outcome in [
        (["q", "r"], ("q", None, None)),
        (["q"], ("q", None, None)),
        ([], "turns is not a list of questions"),
        ("q", "turns is not a list of questions"),
        ([" q "], (" q ", None, None)),
    ]
]
PROMPTS: Table = [
    ({"prompt": "q", "id": 1}, ("q", None, None)),
    ({"prompt": "", "id": 2}, "empty prompt"),
    ({"prompt": "\n\nHuman: q\n\nAssistant:", "id": 3}, (asked("q"), None, None)),
    ({"prompt": 5, "id": 4}, "prompt is not text or messages"),
    ({"prompt": str(messages(USER)), "id": 5}, "prompt is messages that were written as text"),
    ({"prompt": "[1, 2] is a list", "id": 6}, ("[1, 2] is a list", None, None)),
]

STORY = "Once upon a time, there was a small\n\nHuman: dog."
NO_TRANSCRIPT = "the text is no transcript that begins with a user's turn and ends with an answer"
TRANSCRIPT: Table = [  # timdettmers/openassistant-guanaco
    ({"text": "### Human: Hi.### Assistant: Hello."}, ("### Human: Hi.### Assistant:", " Hello.", None)),
    (
        {"text": "### Human: Hi.### Assistant: Hello.### Human: Why?### Assistant: So."},
        ("### Human: Hi.### Assistant: Hello.### Human: Why?### Assistant:", " So.", None),
    ),
    ({"text": "Question: Why?\nAnswer: So."}, ("Question: Why?\nAnswer:", " So.", None)),
    ({"text": "### Human: Hi.### Assistant: Hello.### Human: Why?"}, NO_TRANSCRIPT),
    ({"text": "### Human: Hi."}, NO_TRANSCRIPT),
    ({"text": "Plain."}, NO_TRANSCRIPT),
    ({"text": "Q: Two?\nA: 2"}, ("Q: Two?\nA:", " 2", None)),
    ({"text": "User: Two?\nBot: 2"}, ("User: Two?\nBot:", " 2", None)),
]
TEXT: Table = [  # documents: no turn in them is one, no blank is lost
    (
        {"text": STORY, "url": "https://example.org/a b", "timestamp": "2019-04-25"},
        ([("text", "")], answered(STORY), None),
    ),
    ({"text": " Two  blanks. ", "url": "", "timestamp": ""}, ([("text", "")], answered(" Two  blanks. "), None)),
    ({"text": "", "url": "", "timestamp": ""}, "empty chosen"),
    ({"text": None, "url": "", "timestamp": ""}, "text is not text"),
    ({"text": 5, "url": "", "timestamp": ""}, "text is not text"),
]

TABLES: dict[str, list[Table]] = {
    "kto": [KTO, KTO_CHAT],
    "kto-alpaca": [KTO_ALPACA],
    "kto-messages": [KTO_TAG, KTO_SHAREGPT],
    "demonstration": [DEMONSTRATION],
    "prompt-completion": [PROMPT_COMPLETION],
    "messages": [MESSAGES],
    "sharegpt": [SHAREGPT],
    "alpaca": [ALPACA],
    "self-instruct": [SELF_INSTRUCT],
    "text": [TEXT],
    "transcript": [TRANSCRIPT],
    "gsm8k": [GSM8K],
    "instructions": [INSTRUCTIONS],
    "questions": [QUESTIONS],
    "prompt": [PROMPTS],
}
CASES = [(name, table) for name, tables in TABLES.items() for table in tables]


@pytest.mark.parametrize(("name", "table"), CASES, ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)])
def test_rows_of_each_layout(name: str, table: Table) -> None:
    check(name, table)


def test_a_function_call_of_sharegpt_is_a_call_of_the_assistant() -> None:
    turns = sharegpt(
        ("human", "q"), ("function_call", '{"name": "f", "arguments": {"x": 1}}'), ("observation", "4"), ("gpt", "a")
    )
    tools = '[{"name": "f", "parameters": {}}]'
    (row,) = Preferences.from_rows([{"conversations": turns, "tools": tools}])
    (call,) = json.loads(row["prompt"][1]["tool_calls"])
    assert call == {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert json.loads(row["tools"]) == [{"name": "f", "parameters": {}}]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("kto", {"prompt": "q", "completion": "a"}, "needs the column kto_tag or label"),
        ("kto-messages", {"label": True}, "needs the column conversations or messages"),
        ("ms-swift", {"messages": messages(USER, GOOD)}, "needs the column rejected or rejected_messages or"),
        ("llmbar", {"output_1": "a", "output_2": "b", "label": 1}, "needs the column input or instruction"),
    ],
)
def test_a_named_format_without_its_columns(name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preferences.from_rows([row], format=name)


def test_two_labels_are_no_label() -> None:
    with pytest.raises(UserError, match="1 kto_tag and label are both given"):
        Preferences.from_rows([{"prompt": "q", "completion": "a", "label": True, "kto_tag": False}])


def test_a_few_transcripts_among_texts_are_texts() -> None:
    rows = [{"text": text} for text in ("One.", "Two.", "### Human: Hi.### Assistant: Hello.")]
    assert read(rows)[1].rule == "text"
    assert read(rows[2:])[1].rule == "transcript"
    assert read(rows[2:], format="text")[0] == [([("text", "")], answered(rows[2]["text"]), None)]
