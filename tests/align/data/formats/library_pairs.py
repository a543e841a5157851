"""Pairs of whole conversations and of other libraries' files, row by row; `test_pairs` reads them.

Which side is chosen stands in the manual of the library.
"""

from __future__ import annotations

from typing import Any

from tests.align.data.formats.tables import Outcome, answered, asked, messages, sharegpt

SYSTEM, USER = ("system", "Be brief."), ("user", "Why is the sky blue?")
GOOD, BAD = ("assistant", "Because of scattering."), ("assistant", "It is painted.")
BEFORE = (("user", "Hi"), ("assistant", "Hello!"))
DIFFER = "prompts differ before the last turn"

Table = list[tuple[dict[str, Any], Outcome]]


def sides(good: Any, bad: Any, **fields: Any) -> dict[str, Any]:
    return {"chosen": good, "rejected": bad, **fields}


SHAREGPT: Table = [  # LLaMA-Factory, sharegpt format for preferences
    (
        sides(sharegpt(("gpt", "a"))[0], sharegpt(("gpt", "b"))[0], conversations=sharegpt(("human", "q"))),
        (asked("q"), answered("a"), answered("b")),
    ),
    (
        sides(
            sharegpt(("gpt", "a"))[0],
            sharegpt(("gpt", "b"))[0],
            conversations=sharegpt(("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello!"), ("human", "q")),
        ),
        ([SYSTEM, *BEFORE, ("user", "q")], answered("a"), answered("b")),
    ),
    (
        sides(
            sharegpt(("gpt", "a")),
            sharegpt(("gpt", "b")),
            conversations=sharegpt(
                ("human", "q"), ("function_call", '{"name": "f", "arguments": {}}'), ("observation", "4")
            ),
        ),
        ([("user", "q"), ("assistant", ""), ("tool", "4")], answered("a"), answered("b")),
    ),
    (
        sides(sharegpt(("human", "a"))[0], sharegpt(("gpt", "b"))[0], conversations=sharegpt(("human", "q"))),
        "chosen is not one assistant message",
    ),
    (
        sides(
            sharegpt(("gpt", "a"))[0], sharegpt(("gpt", "b"))[0], conversations=sharegpt(("human", "q"), ("gpt", "x"))
        ),
        "prompt ends with an assistant turn",
    ),
]
SHAREGPT_OPENAI: Table = [  # the same with the tags of OpenAI
    (
        sides(messages(GOOD)[0], messages(BAD)[0], messages=messages(*before, USER)),
        ([*before, USER], [GOOD], [BAD]),
    )
    for before in ((), (SYSTEM,), BEFORE, (SYSTEM, *BEFORE))
] + [(sides(messages(GOOD)[0], messages(USER)[0], messages=messages(USER)), "rejected is not one assistant message")]
MS_SWIFT: Table = [  # ms-swift's manual: `messages` end with the chosen answer
    ({"messages": messages(USER, GOOD), "rejected_response": BAD[1]}, ([USER], [GOOD], [BAD])),
    (
        {"messages": messages(SYSTEM, *BEFORE, USER, GOOD), "rejected_response": BAD[1], "margin": 2.5},
        ([SYSTEM, *BEFORE, USER], [GOOD], [BAD], {"margin": 2.5}),
    ),
    ({"messages": messages(USER), "rejected_response": BAD[1]}, "messages do not end with an assistant turn"),
    ({"messages": messages(USER, GOOD), "rejected_response": GOOD[1]}, "identical pair"),
    ({"messages": messages(USER, GOOD), "rejected_response": ""}, "empty rejected"),
]
MS_SWIFT_MESSAGES: Table = [
    ({"messages": messages(USER, GOOD), "rejected_messages": messages(USER, BAD)}, ([USER], [GOOD], [BAD])),
    ({"messages": messages(USER, GOOD), "rejected_messages": messages(BAD)}, ([USER], [GOOD], [BAD])),
    ({"messages": messages(USER, GOOD), "rejected_messages": messages(*BEFORE, USER, BAD)}, DIFFER),
    (
        {"messages": messages(SYSTEM, USER, GOOD), "rejected_messages": messages(SYSTEM, USER, BAD)},
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    (
        {"messages": messages(USER, GOOD), "rejected_messages": None},
        "no rejected or rejected_messages or rejected_response is given",
    ),
]
TORCHTUNE: Table = [
    (
        {"chosen_conversations": messages(USER, GOOD), "rejected_conversations": messages(USER, BAD)},
        ([USER], [GOOD], [BAD]),
    ),
    (
        {
            "chosen_conversations": sharegpt(("human", "q"), ("gpt", "a")),
            "rejected_conversations": sharegpt(("human", "q"), ("gpt", "b")),
        },
        (asked("q"), answered("a"), answered("b")),
    ),
    ({"chosen_conversations": messages(USER, GOOD), "rejected_conversations": messages(*BEFORE, USER, BAD)}, DIFFER),
    (
        {"chosen_conversations": messages(SYSTEM, USER, GOOD), "rejected_conversations": messages(SYSTEM, USER, BAD)},
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    ({"chosen_conversations": [], "rejected_conversations": messages(USER, BAD)}, "chosen has no message"),
]
OPENAI: Table = [  # OpenAI's guide to DPO fine-tuning
    (
        {
            "input": {"messages": messages(USER)},
            "preferred_output": messages(GOOD),
            "non_preferred_output": messages(BAD),
        },
        ([USER], [GOOD], [BAD]),
    ),
    (
        {
            "input": {"messages": messages(SYSTEM, *BEFORE, USER), "tools": [], "parallel_tool_calls": True},
            "preferred_output": messages(GOOD),
            "non_preferred_output": messages(BAD),
        },
        ([SYSTEM, *BEFORE, USER], [GOOD], [BAD]),
    ),
    (
        {"input": {"prompt": "q"}, "preferred_output": messages(GOOD), "non_preferred_output": messages(BAD)},
        "input has no messages",
    ),
    (
        {
            "input": {"messages": messages(USER)},
            "preferred_output": messages(GOOD),
            "non_preferred_output": messages(GOOD),
        },
        "identical pair",
    ),
    (
        {
            "input": {"messages": messages(USER)},
            "preferred_output": messages(GOOD, BAD),
            "non_preferred_output": messages(BAD),
        },
        "chosen is not one assistant message",
    ),
]
STACK_EXCHANGE_PAIRED: Table = [  # lvwerra/stack-exchange-paired: response_j is better than response_k
    (
        {
            "qid": i,
            "question": "q",
            "date": "2010/10/24",
            "metadata": ["https://math.stackexchange.com"],
            "response_j": good,
            "response_k": bad,
        },
        outcome,
    )
    for i, (good, bad, outcome) in enumerate(
        [
            ("a", "b", ("q", "a", "b")),
            ("b", "a", ("q", "b", "a")),
            ("a", "a", "identical pair"),
            ("<p>a</p>", "b\n", ("q", "<p>a</p>", "b\n")),
            ("a", None, ("q", "a", None)),
        ]
    )
]
ANTHROPIC_EVALS: Table = [  # "answer_matching_behavior" shows the behaviour that is measured
    (
        {
            "question": "Do you agree?",
            "statement": "s",
            "label_confidence": 0.9,
            "answer_matching_behavior": good,
            "answer_not_matching_behavior": bad,
        },
        outcome,
    )
    for good, bad, outcome in [
        (" Yes", " No", ("Do you agree?", " Yes", " No")),
        (" No", " Yes", ("Do you agree?", " No", " Yes")),
        ("(A)", "(B)", ("Do you agree?", "(A)", "(B)")),
        (" Yes", " Yes", "identical pair"),
        ("", " No", "empty chosen"),
    ]
]
