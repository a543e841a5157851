"""Pairs whose sides have columns of their own, in the layouts of public data sets.

Which side is chosen stands in the documentation of each: a data set's card, or the manual of the library that reads it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.align.data.formats.library_pairs import (
    ANTHROPIC_EVALS,
    BAD,
    BEFORE,
    DIFFER,
    GOOD,
    MS_SWIFT,
    MS_SWIFT_MESSAGES,
    OPENAI,
    SHAREGPT,
    SHAREGPT_OPENAI,
    STACK_EXCHANGE_PAIRED,
    SYSTEM,
    TORCHTUNE,
    USER,
    Table,
    sides,
)
from tests.align.data.formats.tables import answered, asked, check, messages, sharegpt

PAIRWISE: Table = [  # TRL, "explicit prompt": chosen is preferred
    (sides("Blue.", "Red.", prompt="q"), ("q", "Blue.", "Red.")),
    (sides(" Blue.", "\nRed. ", prompt=" q "), (" q ", " Blue.", "\nRed. ")),  # blanks belong to the texts
    (sides("Red.", "Red.", prompt="q"), "identical pair"),
    (sides("", "Red.", prompt="q"), "empty chosen"),
    (sides("Blue.", None, prompt="q"), ("q", "Blue.", None)),
    (sides(None, "Red.", prompt="q"), ("q", None, "Red.")),
    (sides("Blue.", "Red.", prompt=""), "empty prompt"),
    (sides(5, "Red.", prompt="q"), "chosen is not text or messages"),
]
TULU: Table = [  # allenai/tulu-3 preference mixture: the conversation is repeated on both sides
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt=USER[1], id="a", source="wildchat"),
        ([USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(*BEFORE, USER, GOOD), messages(*BEFORE, USER, BAD), prompt="Hi", id="b", source="x"),
        ([*BEFORE, USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt=f" {USER[1]}\n", id="c", source="x"),
        ([USER], [GOOD], [BAD]),
    ),
    (sides(messages(USER, GOOD), messages(*BEFORE, USER, BAD), prompt=USER[1], id="d", source="x"), DIFFER),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt="Another question", id="e", source="x"),
        "the conversations do not begin with the prompt",
    ),
]
EXPLICIT: Table = [  # TRL, conversational
    (sides(messages(GOOD), messages(BAD), prompt=messages(SYSTEM, USER)), ([SYSTEM, USER], [GOOD], [BAD])),
    (sides(messages(GOOD)[0], messages(BAD)[0], prompt=messages(USER)), ([USER], [GOOD], [BAD])),
    (sides(messages(USER), messages(BAD), prompt=messages(USER)), "chosen is not one assistant message"),
    (sides(messages(GOOD), messages(BAD), prompt=messages(USER, GOOD)), "prompt ends with an assistant turn"),
    (sides(sharegpt(("gpt", "a")), sharegpt(("gpt", "b")), prompt=messages(USER)), ([USER], *map(answered, "ab"))),
]
PROMPT_WITH_SYSTEM: Table = [  # the conversations may lack the system's turn that the prompt has
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt=messages(SYSTEM, USER)),
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(SYSTEM, USER, GOOD), messages(SYSTEM, USER, BAD), prompt=messages(USER)),
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(SYSTEM, USER, GOOD), messages(SYSTEM, USER, BAD), prompt=messages(SYSTEM, USER)),
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(SYSTEM, USER, GOOD), messages(SYSTEM, USER, BAD), prompt=messages(("system", "Be long."), USER)),
        "the system says one thing in the prompt and another in the conversations",
    ),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt=messages(*BEFORE, USER)),
        "the conversations do not begin with the prompt",
    ),
]
WITH_SYSTEM: Table = [
    (sides("a", "b", prompt="q", system="Be brief."), ([SYSTEM, ("user", "q")], answered("a"), answered("b"))),
    (sides("a", "b", prompt="q", system=None), ("q", "a", "b")),
    (sides("a", "b", prompt="q", system=""), ("q", "a", "b")),
    (sides("a", "b", prompt="", system="Be brief."), "empty prompt"),
    (sides("b", "a", prompt="r", system="Be brief."), ([SYSTEM, ("user", "r")], answered("b"), answered("a"))),
]
WHOLE_WITH_SYSTEM: Table = [
    (
        sides(messages(USER, GOOD), messages(USER, BAD), prompt=USER[1], system="Be brief."),
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
    (
        sides(messages(SYSTEM, USER, GOOD), messages(SYSTEM, USER, BAD), prompt=USER[1], system="Be brief."),
        ([SYSTEM, USER], [GOOD], [BAD]),
    ),
]
ARGILLA_CLEANED: Table = [  # argilla/ultrafeedback-binarized-preferences-cleaned: ratings of 1 to 5
    (
        {
            **sides(messages(USER, GOOD), messages(USER, BAD), prompt=USER[1], source="evol"),
            **{"chosen-rating": good, "rejected-rating": bad, "chosen-model": "gpt-4", "rejected-model": "alpaca-7b"},
        },
        ([USER], [GOOD], [BAD], {"chosen_score": good, "rejected_score": bad}),
    )
    for good, bad in ((5.0, 1.0), (4.75, 4.5), (3.0, 3.0), (2, 1))
] + [
    (
        {
            **sides(messages(USER, GOOD), messages(USER, BAD), prompt=USER[1], source="evol"),
            **{"chosen-rating": "5", "rejected-rating": None, "chosen-model": "x", "rejected-model": "y"},
        },
        ([USER], [GOOD], [BAD], {"chosen_score": 5.0}),
    )
]


def hh(*turns: str) -> str:
    return "".join(f"\n\n{speaker}: {text}" for speaker, text in zip(("Human", "Assistant") * 3, turns, strict=False))


DAHOAS: Table = [  # Dahoas/full-hh-rlhf: the prompt is HH's transcript up to the mark, the sides begin with a blank
    (
        sides(" Yes.", " No.", prompt=hh("Really?") + "\n\nAssistant:"),
        (asked("Really?"), *map(answered, ("Yes.", "No."))),
    ),
    (
        sides(" Yes.", " No.", prompt=hh("Hi", "Hello!", "Really?") + "\n\nAssistant: "),
        ([*BEFORE, ("user", "Really?")], answered("Yes."), answered("No.")),
    ),
    (
        sides("  Yes.", "No.", prompt=hh("Really?") + "\n\nAssistant:"),  # one blank belongs to the mark
        (asked("Really?"), answered(" Yes."), answered("No.")),
    ),
    (
        sides(hh("Really?", "Yes."), hh("Really?", "No."), prompt=hh("Really?") + "\n\nAssistant:"),  # repeated
        (asked("Really?"), answered("Yes."), answered("No.")),
    ),
    (
        sides(" Yes.", " No.", prompt="Human: Really?\n\nAssistant:"),  # stripped
        (asked("Really?"), answered("Yes."), answered("No.")),
    ),
    (sides(" Yes.", " ", prompt=hh("Really?") + "\n\nAssistant:"), "empty rejected"),
]
HH: Table = [  # Anthropic/hh-rlhf: "one text is chosen and one is rejected"
    (sides(hh("Really?", "Yes."), hh("Really?", "No.")), (asked("Really?"), answered("Yes."), answered("No."))),
    (
        sides(hh("Hi", "Hello!", "Really?", "Yes."), hh("Hi", "Hello!", "Really?", "No.")),
        ([*BEFORE, ("user", "Really?")], answered("Yes."), answered("No.")),
    ),
    (sides(hh("Hi", "Hey!", "Really?", "Yes."), hh("Hi", "Hello!", "Really?", "No.")), DIFFER),
    (sides(hh("Really?", ""), hh("Really?", "No.")), "empty chosen"),
    (sides(hh("Really?", "Yes.", "Thanks"), hh("Really?", "No.")), "chosen does not end with an Assistant turn"),
    (
        sides(hh("Really?", "  Yes. \n"), hh("Really?", "No.")),
        (asked("Really?"), answered(" " + " Yes. \n"), answered("No.")),
    ),
]
IMPLICIT: Table = [  # TRL, "implicit prompt"
    (sides(messages(USER, GOOD), messages(USER, BAD)), ([USER], [GOOD], [BAD])),
    (
        sides(messages(SYSTEM, *BEFORE, USER, GOOD), messages(SYSTEM, *BEFORE, USER, BAD)),
        ([SYSTEM, *BEFORE, USER], [GOOD], [BAD]),
    ),
    (sides(messages(USER, GOOD), messages(*BEFORE, USER, BAD)), DIFFER),
    (sides(messages(GOOD), messages(BAD)), "empty prompt"),
    (
        sides(sharegpt(("human", "q"), ("gpt", "a")), sharegpt(("human", "q"), ("gpt", "b"))),
        (asked("q"), answered("a"), answered("b")),
    ),
    (sides(messages(USER, GOOD), messages(USER, GOOD)), "identical pair"),
]
TRANSCRIPTS: Table = [
    (sides("Q: Why?\nA: So.", "Q: Why?\nA: Because."), ("Q: Why?\nA:", " So.", " Because.")),
    (
        sides("User: Hi\nBot: Yes", "User: Hi\nBot: Yes, sir"),
        "one answer continues the other, so the end of the prompt cannot be seen: give it in a column",
    ),
    (sides("User: Hi\nBot: a", "User: Ho\nBot: b"), DIFFER),
    (sides("User: Hi\nBot: The a", "User: Hi\nBot: The b"), ("User: Hi\nBot:", " The a", " The b")),
    (sides("The sky is blue", "The sky is black"), "no turn of an assistant is marked"),
    (sides("User: 5 + 5\nBot: 10", "User: 5 + 5\nBot: 11"), ("User: 5 + 5\nBot:", " 10", " 11")),
]
ULTRAFEEDBACK: Table = [  # HuggingFaceH4/ultrafeedback_binarized: chosen is the completion with the highest score
    (
        sides(
            messages(USER, GOOD),
            messages(USER, BAD),
            prompt=USER[1],
            prompt_id=f"{i}",
            messages=messages(USER, GOOD),
            score_chosen=good,
            score_rejected=bad,
        ),
        ([USER], [GOOD], [BAD], {"chosen_score": good, "rejected_score": bad}),
    )
    for i, (good, bad) in enumerate(((8.5, 2.0), (9.0, 8.0), (7, 7), (10, 1)))
] + [
    (
        sides(
            messages(USER, BAD),
            messages(USER, BAD),
            prompt=USER[1],
            prompt_id="4",
            messages=messages(USER, BAD),
            score_chosen=5.0,
            score_rejected=5.0,
        ),
        "identical pair",
    )
]
ULTRAFEEDBACK_IMPLICIT: Table = [  # trl-lib/ultrafeedback_binarized: no prompt, scores also as text
    (
        sides(messages(USER, GOOD), messages(USER, BAD), score_chosen="8.5", score_rejected="2"),
        ([USER], [GOOD], [BAD], {"chosen_score": 8.5, "rejected_score": 2.0}),
    ),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), score_chosen="N/A", score_rejected="2"),
        "chosen_score is not a number",
    ),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), score_chosen="nan", score_rejected="2"),
        "chosen_score is not finite",
    ),
    (
        sides(messages(USER, GOOD), messages(USER, BAD), score_chosen=None, score_rejected=2),
        ([USER], [GOOD], [BAD], {"rejected_score": 2.0}),
    ),
    (sides(messages(USER, GOOD), messages(GOOD), score_chosen=8, score_rejected=2), DIFFER),
]
ALPACA_PAIRS: Table = [  # LLaMA-Factory, alpaca format for preferences: chosen is the better answer
    (sides("a", "b", instruction="Add.", input="1 1"), ("Add.\n1 1", "a", "b")),
    (sides("a", "b", instruction="Add.", input=""), ("Add.", "a", "b")),
    (sides("a", "b", instruction="Add.", input=None), ("Add.", "a", "b")),
    (sides("a", "b", instruction="", input="1 1"), ("1 1", "a", "b")),
    (sides("a", "b", instruction=["Add."], input=""), "instruction or input is not text"),
    (sides("a", "b", instruction="", input=""), "empty prompt"),
]
ALPACA_HISTORY: Table = [
    (
        sides("a", "b", instruction="q", input="", system="Be brief.", history=[["Hi", "Hello!"]]),
        ([SYSTEM, *BEFORE, ("user", "q")], answered("a"), answered("b")),
    ),
    (sides("a", "b", instruction="q", input="", system="", history=[]), ("q", "a", "b")),
    (
        sides("a", "b", instruction="q", input="x", system="", history=[["Hi", "Hello!"]]),
        ([*BEFORE, ("user", "q\nx")], answered("a"), answered("b")),
    ),
    (
        sides("a", "b", instruction="q", input="", system="", history=[["Hi"]]),
        "history is not a list of questions with answers",
    ),
    (
        sides("a", "b", instruction="q", input="", system="Be brief.", history=[]),
        ([SYSTEM, ("user", "q")], answered("a"), answered("b")),
    ),
]
ARGILLA: Table = [  # "chosen_response" is the preferred one
    ({"instruction": "q", "chosen_response": "a", "rejected_response": "b"}, ("q", "a", "b")),
    ({"instruction": "q", "chosen_response": "b", "rejected_response": "a"}, ("q", "b", "a")),
    ({"instruction": "q", "chosen_response": "a", "rejected_response": "a"}, "identical pair"),
    ({"instruction": None, "chosen_response": "a", "rejected_response": "b"}, "instruction or input is not text"),
    ({"instruction": "q", "chosen_response": " a", "rejected_response": "b"}, ("q", " a", "b")),
]
ORCA: Table = [  # Intel/orca_dpo_pairs: chosen is GPT-4's answer; `system` is empty in many rows
    (sides("a", "b", system="Be brief.", question="q"), ([SYSTEM, ("user", "q")], answered("a"), answered("b"))),
    (sides("a", "b", system="", question="q"), ("q", "a", "b")),
    (sides("a", "", system="", question="q"), "empty rejected"),
    (sides("a", "b", system=None, question=""), "empty prompt"),
    (sides("b", "a", system="", question="q"), ("q", "b", "a")),
]


def distilabel(rating: list[float] | None, status: str, good: str = "a", bad: str = "b") -> dict[str, Any]:
    more = {
        "input": "q",
        "generations": ["a", "b"],
        "order": ["chosen", "rejected"],
        "rating": rating,
        "status": status,
    }
    more |= {"labelling_model": "gpt-4-1106-preview", "rationale": "The first is much better than the second."}
    return {"system": "", **sides(good, bad), **more, "chosen_score": rating and max(rating), "in_gsm8k_train": False}


DISTILABEL_ORCA: Table = [  # argilla/distilabel-intel-orca-dpo-pairs
    (distilabel([9.0, 3.0], "unchanged"), ("q", "a", "b", {"chosen_score": 9.0})),
    (distilabel([3.0, 9.0], "swapped", "b", "a"), ("q", "b", "a", {"chosen_score": 9.0})),
    (distilabel([7.0, 7.0], "tie"), ("q", "a", "b", {"chosen_score": 7.0})),
    (distilabel(None, "unchanged"), ("q", "a", "b")),
    (distilabel([9.0, 3.0], "unchanged", "a", "a"), "identical pair"),
]
LABEL_PAGE: Table = [  # two annotators, whose notes are words that elsewhere are verdicts
    (
        {**sides("a", "b", prompt="q"), "annotator": name, "seconds": 2.5, "note": note, "chosen_left": name == "bob"},
        ("q", "a", "b"),
    )
    for name, note in (("ann", "good"), ("bob", "bad"), ("ann", ""), ("bob", "chosen is worse"))
]
TABLES = {
    "label-page": [LABEL_PAGE],
    "pairwise": [PAIRWISE, TULU, EXPLICIT, WITH_SYSTEM, WHOLE_WITH_SYSTEM, PROMPT_WITH_SYSTEM, ARGILLA_CLEANED, DAHOAS],
    "hh-rlhf": [HH],
    "trl-implicit": [IMPLICIT, TRANSCRIPTS],
    "ultrafeedback": [ULTRAFEEDBACK, ULTRAFEEDBACK_IMPLICIT],
    "alpaca-pairs": [ALPACA_PAIRS, ALPACA_HISTORY],
    "argilla": [ARGILLA],
    "orca-pairs": [ORCA],
    "distilabel-orca": [DISTILABEL_ORCA],
    "sharegpt-pairs": [SHAREGPT, SHAREGPT_OPENAI],
    "ms-swift": [MS_SWIFT, MS_SWIFT_MESSAGES],
    "torchtune": [TORCHTUNE],
    "openai-preference": [OPENAI],
    "stack-exchange-paired": [STACK_EXCHANGE_PAIRED],
    "anthropic-evals": [ANTHROPIC_EVALS],
}
CASES = [(name, table) for name, tables in TABLES.items() for table in tables]


@pytest.mark.parametrize(("name", "table"), CASES, ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)])
def test_rows_of_each_layout(name: str, table: Table) -> None:
    check(name, table)
