"""Two responses and a label, in the layouts of public data sets; what a label means stands in their documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.align.data.formats.tables import Outcome, answered, asked, check, messages

TIE = "tie between the responses"
Table = list[tuple[dict[str, Any], Outcome]]
FIRST, SECOND = ("q", "one", "two"), ("q", "two", "one")


def two(name: str, marks: str, **fields: Any) -> dict[str, Any]:
    """A row with the responses "one" and "two" in two columns that end in these marks."""
    return {f"{name}{marks[0]}": "one", f"{name}{marks[1]}": "two", **fields}


def by_label(name: str, marks: str, label: str, values: list[tuple[Any, Outcome]], **fields: Any) -> Table:
    """A row for each label."""
    return [(two(name, marks, **fields, **{label: value}), outcome) for value, outcome in values]


LABELLED = by_label(
    "response_",
    "12",
    "better",
    [
        (1, FIRST),
        (2, SECOND),
        ("tie", TIE),
        (1.0, FIRST),
        ("2", SECOND),
        (None, "no label is given"),
        (True, "unknown label"),
        (0, "unknown label"),
        (3, "unknown label"),
        (1.5, "unknown label"),
        ("gpt-2", "unknown label"),
    ],
    prompt="q",
)
WORDS = by_label(
    "response_",
    "12",
    "better",
    [
        ("A", FIRST),
        ("b", SECOND),
        ("model_a", FIRST),
        ("model_b", SECOND),
        (" First ", FIRST),
        ("second", SECOND),
        ("left", FIRST),
        ("right", SECOND),
        ("response_1", FIRST),
        ("Response 2", SECOND),
        ("answer_b", SECOND),
        ("tie (bothbad)", TIE),
        ("both_bad", TIE),
        ("Draw", TIE),
        ("claude-2", "unknown label"),
        ("", "unknown label"),
    ],
    prompt="q",
)


def panda(*votes: Any, **changes: Any) -> dict[str, Any]:
    row = {"idx": 7, "motivation_app": "Grammarly", "cmp_key": "bloom-7b_llama-7b", "instruction": "q", "input": ""}
    return two("response", "12", **row, **{f"annotator{i}": vote for i, vote in enumerate(votes, 1)}) | changes


PANDALM: Table = [  # PandaLM's test set: "1: response 1 is better, 2: response 2 is better, 0: tie"
    (panda(1, 1, 2), FIRST),
    (panda(2, 0, 2, input="x"), ("q\nx", "two", "one")),
    (panda(0, 0, 1), TIE),
    (panda(0, 1, 2), "the annotators have no majority"),
    (panda("2", "2", 1.0), SECOND),
    (panda(1, 1, 3), "unknown label"),
    (panda(1, 1, None), "no label is given"),
    (panda(1, 1, 1, response2=True), "rejected is not text or messages"),
]
LLMBAR = by_label(  # "label 1 or 2: the index of the better output"; the instruction is in `input`
    "output_", "12", "label", [(1, FIRST), (2, SECOND), (0, TIE), ("2", SECOND), (None, "no label is given")], input="q"
)
LLMBAR_INSTRUCTION = by_label(
    "output_", "12", "label", [(1, ("q\nx", "one", "two")), (2, ("q\nx", "two", "one"))], instruction="q", input="x"
)
ALPACA_EVAL = by_label(  # alpaca_eval: "preference of 2 means output_2 is better, 1 output_1; 0 and 1.5 are ties"
    "output_",
    "12",
    "preference",
    [
        (1, FIRST),
        (2, SECOND),
        (1.0032, FIRST),
        (1.9999, SECOND),
        (1.5, TIE),
        (0, TIE),
        (None, "no preference is given"),
        ("1.25", FIRST),
        (0.5, "unknown label"),
        (-1, "unknown label"),
        (float("nan"), "preference is not finite"),
    ],
    instruction="q",
    dataset="helpful_base",
    generator_1="text_davinci_003",
    generator_2="gpt-4",
    annotator="gpt4",
    time_per_example=1.5,
    price_per_example=0.01,
    raw_completion=None,
)


def halos(label: Any, *rewards: Any) -> dict[str, Any]:
    return two("output_", "AB", prompt="q", label=label, **dict(zip(("reward_A", "reward_B"), rewards, strict=False)))


HALOS: Table = [  # HALOs: "label: 1 if A is preferred to B, 0 otherwise"
    (halos(1, 0.5, -1.0), (*FIRST, {"chosen_score": 0.5, "rejected_score": -1.0})),
    (halos(0, -1, 0.5), (*SECOND, {"chosen_score": 0.5, "rejected_score": -1.0})),
    (halos(True, None, None), FIRST),
    (halos(False, "1.5", "2"), (*SECOND, {"chosen_score": 2.0, "rejected_score": 1.5})),
    (halos("1", 0.5, -1.0), (*FIRST, {"chosen_score": 0.5, "rejected_score": -1.0})),
    (halos(2, 0.5, -1.0), "unknown label"),
    (halos(1, "high", -1.0), "reward_A is not a number"),
]


def shp(label: Any, first: Any, second: Any) -> dict[str, Any]:
    extra = {
        "post_id": "7",
        "domain": "askacademia_train",
        "upvote_ratio": 0.9,
        "score_ratio": 2.0,
        "seconds_difference": 3,
    }
    extra |= {"c_root_id_A": "a", "c_root_id_B": "b", "created_at_utc_A": 1, "created_at_utc_B": 2}
    return two("human_ref_", "AB", history="q", labels=label, score_A=first, score_B=second, **extra)


SHP: Table = [  # stanfordnlp/SHP: "labels: 1 if A is preferred to B; 0 if B is preferred to A"
    (shp(1, 20, 5), (*FIRST, {"chosen_score": 20.0, "rejected_score": 5.0})),
    (shp(0, 5, 20), (*SECOND, {"chosen_score": 20.0, "rejected_score": 5.0})),
    (shp("0", "5", "20"), (*SECOND, {"chosen_score": 20.0, "rejected_score": 5.0})),  # as CSV has it
    (shp(None, 5, 20), "labels is not a number"),
    (shp(1.0, -3, -8), (*FIRST, {"chosen_score": -3.0, "rejected_score": -8.0})),
    (shp(2, 5, 20), "unknown label"),
]
HELPSTEER3: Table = [  # nvidia/HelpSteer3: at −3 response 1 is much better, at 3 response 2
    (
        two(
            "response",
            "12",
            context=messages(("user", "q")),
            domain="general",
            language="english",
            overall_preference=strength,
            individual_preference=[{"score": strength, "reasoning": "It is shorter."}],
        ),
        outcome,
    )
    for strength, outcome in [
        (-3, (asked("q"), answered("one"), answered("two"), {"margin": 3.0})),
        (2, (asked("q"), answered("two"), answered("one"), {"margin": 2.0})),
        (0, TIE),
        ("-1", (asked("q"), answered("one"), answered("two"), {"margin": 1.0})),
        (None, "overall_preference is not a number"),
    ]
]
HELPSTEER2: Table = [  # nvidia/HelpSteer2, preference: as HelpSteer3
    (
        two(
            "response_",
            "12",
            prompt="q",
            split="train",
            preference_strength=strength,
            preference_statement="It is clear.",
            preference_elaboration="Because it is.",
            three_most_similar_preferences=[],
            all_preferences_unprocessed=[],
        ),
        outcome,
    )
    for strength, outcome in [
        (-1, (*FIRST, {"margin": 1.0})),
        (3, (*SECOND, {"margin": 3.0})),
        (0, TIE),
        (-0.5, (*FIRST, {"margin": 0.5})),
        (4, "unknown label"),
    ]
]
PKU = by_label(  # PKU-Alignment/PKU-SafeRLHF: "better_response_id" is the more helpful one
    "response_",
    "01",
    "better_response_id",
    [(0, FIRST), (1, SECOND), ("1", SECOND), (-1, "unknown label"), (None, "better_response_id is not a number")],
    prompt="q",
    prompt_source="Alpaca-7B",
    safer_response_id=1,
    is_response_0_safe=False,
    is_response_1_safe=True,
)


def tldr(choice: Any, **info: Any) -> dict[str, Any]:
    summaries = [{"text": " one", "policy": "sup1", "note": None}, {"text": " two", "policy": "ref", "note": None}]
    return {"info": info, "summaries": summaries, "choice": choice, "worker": "w", "batch": "b", "split": "train"}


POST = {"id": "t3", "post": "It rained.", "title": "Rain", "subreddit": "weather", "site": None, "article": None}
REDDIT = "SUBREDDIT: r/weather\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"  # Stiennon et al. 2020, appendix B
TLDR: Table = [  # openai/summarize_from_feedback: "choice" is the index of the better summary
    (tldr(0, **POST), (REDDIT, " one", " two")),
    (tldr(1, **POST), (REDDIT, " two", " one")),
    (tldr(1, article="Much rain.", site="cnn"), ("Article: Much rain.\n\nTL;DR:", " two", " one")),
    (tldr(2, **POST), "unknown label"),
    (tldr(0, **POST) | {"summaries": [{"text": " one"}]}, "info and two summaries are not there"),
]


def arena(winner: Any, first: list[Any], second: list[Any], **fields: Any) -> dict[str, Any]:
    extra = {
        "question_id": "7",
        "model_a": "vicuna-13b",
        "model_b": "koala-13b",
        "judge": "arena_user_1",
        "tstamp": 1.5,
    }
    extra |= {
        "language": "English",
        "anony": True,
        "openai_moderation": {"flagged": False},
        "toxic_chat_tag": {"flag": 0},
    }
    return {"conversation_a": first, "conversation_b": second, "winner": winner, **extra, **fields}


ONE, TWO = (messages(("user", "q"), ("assistant", answer)) for answer in ("one", "two"))
LONGER = [*messages(("user", "Hi"), ("assistant", "Hello!")), *TWO]
TURNS = (asked("q"), answered("one"), answered("two"))
ARENA: Table = [  # lmsys/chatbot_arena_conversations: winner is model_a, model_b, "tie" or "tie (bothbad)"
    (arena("model_a", ONE, TWO), TURNS),
    (arena("model_b", ONE, TWO), (asked("q"), answered("two"), answered("one"))),
    (arena("tie", ONE, TWO), TIE),
    (arena("tie (bothbad)", ONE, TWO), TIE),
    (arena("model_a", ONE, LONGER), "prompts differ before the last turn"),
    (
        arena("model_a", [*ONE, *TWO], [*TWO, *ONE]),
        "the models' answers differ before the last turn, so the two have no common prompt",
    ),
    (arena(None, ONE, TWO), "no label is given"),
    (arena("vicuna-13b", ONE, TWO), TURNS),
    (arena("koala-13b", ONE, TWO), (asked("q"), answered("two"), answered("one"))),
    (arena(0, ONE, TWO), "unknown label"),
]
MT_BENCH: Table = [  # lmsys/mt_bench_human_judgments: turn 1 judges the first answer of a conversation of two
    (arena("model_a", [*ONE, *TWO], [*TWO, *ONE], turn=1), TURNS),
    (
        arena("model_b", [*ONE, *TWO], [*ONE, *ONE], turn=2),
        ([*TURNS[0], ("assistant", "one"), ("user", "q")], answered("one"), answered("two")),
    ),
    (arena("tie", [*ONE, *TWO], [*TWO, *ONE], turn=1), TIE),
    (
        arena("model_a", [*ONE, *TWO], [*TWO, *ONE], turn=2),
        "the models' answers differ before the last turn, so the two have no common prompt",
    ),
    (arena("model_a", [*ONE, *TWO], [*TWO, *ONE], turn=0), "chosen has no message"),
]


def kaggle(won: str, asked: list[Any], first: list[Any], second: list[Any]) -> dict[str, Any]:
    labels = {f"winner_{name}": int(name == won) for name in ("model_a", "model_b", "tie")}
    texts = {"prompt": asked, "response_a": first, "response_b": second}
    return {"id": 7, "model_a": "gpt-4", "model_b": "koala", **{n: json.dumps(t) for n, t in texts.items()}, **labels}


ARENA_55K: Table = [  # lmsys/lmsys-arena-human-preference-55k: lists of turns as JSON in a text
    (kaggle("model_a", ["q"], ["one"], ["two"]), TURNS),
    (kaggle("model_b", ["q"], ["one"], ["two"]), (asked("q"), answered("two"), answered("one"))),
    (kaggle("tie", ["q"], ["one"], ["two"]), TIE),
    (kaggle("", ["q"], ["one"], ["two"]), "unknown label"),
    (kaggle("model_a", ["q", "r"], ["one"], ["two"]), "prompt and responses have different numbers of turns"),
    (
        kaggle("model_a", ["q", "q"], ["x", "one"], ["x", "two"]),
        ([("user", "q"), ("assistant", "x"), ("user", "q")], *TURNS[1:]),
    ),
    (kaggle("model_a", ["q"], [None], ["two"]), "content is null"),
    (kaggle("model_a", ["q"], ["one"], ["two"]) | {"prompt": '["q"'}, "prompt is not a JSON list"),
]


def tinker(label: Any, first: Any, second: Any) -> dict[str, Any]:
    comparison = {"prompt_conversation": messages(("user", "q")), "completion_A": first, "completion_B": second}
    return {"comparison": comparison, "label": label}


TINKER: Table = [  # tinker-cookbook: label is "A", "B" or "Tie"
    (tinker("A", ONE[1:], TWO[1:]), TURNS),
    (tinker("B", ONE[1:], TWO[1:]), (asked("q"), answered("two"), answered("one"))),
    (tinker("Tie", ONE[1:], TWO[1:]), TIE),
    (tinker("C", ONE[1:], TWO[1:]), "unknown label"),
    (tinker("A", None, TWO[1:]), "completion_A is not a list of messages"),
    ({"comparison": {}, "label": "A"}, "comparison has no prompt_conversation"),
]
WEBGPT: Table = [  # openai/webgpt_comparisons: scores from −1 to 1, the higher is preferred, 0 and 0 are a tie
    (
        {
            **two("answer_", "01"),
            "question": {"dataset": "eli5", "id": "7", "full_text": "q"},
            "score_0": first,
            "score_1": second,
            "quotes_0": {"title": [], "extract": []},
            "quotes_1": {"title": [], "extract": []},
            "tokens_0": {},
            "tokens_1": {},
        },
        outcome,
    )
    for first, second, outcome in [
        (0.5, -0.5, (*FIRST, {"chosen_score": 0.5, "rejected_score": -0.5})),
        (-1, 1, (*SECOND, {"chosen_score": 1.0, "rejected_score": -1.0})),
        (0, 0, TIE),
        ("0.25", "-0.25", (*FIRST, {"chosen_score": 0.25, "rejected_score": -0.25})),
        (None, 1, "score_0 is not a number"),
    ]
]

TABLES: dict[str, list[Table]] = {
    "labelled": [LABELLED, WORDS],
    "pandalm": [PANDALM],
    "llmbar": [LLMBAR, LLMBAR_INSTRUCTION],
    "alpaca-eval": [ALPACA_EVAL],
    "halos": [HALOS],
    "shp": [SHP],
    "helpsteer3": [HELPSTEER3],
    "helpsteer2-preference": [HELPSTEER2],
    "pku-saferlhf": [PKU],
    "tldr": [TLDR],
    "arena": [ARENA, MT_BENCH],
    "arena-55k": [ARENA_55K],
    "tinker": [TINKER],
    "webgpt": [WEBGPT],
}
CASES = [(name, table) for name, tables in TABLES.items() for table in tables]


@pytest.mark.parametrize(("name", "table"), CASES, ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)])
def test_rows_of_each_layout(name: str, table: Table) -> None:
    check(name, table)
