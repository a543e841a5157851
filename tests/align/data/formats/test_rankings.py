"""Several responses with scores or ranks, in the layouts of public data sets.

A ranking is stored as pairs: with scores, a chain through the levels gives all comparisons; with ranks, every response
is paired with all of the next level.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data import Preferences
from align.data.pairs_and_rankings import draft
from align.errors import UserError
from tests.align.data.formats.tables import Outcome, answered, asked, check, messages, read, said

TIE, FEW = "tie between the responses", "fewer than two responses"
Table = list[tuple[dict[str, Any], Outcome]]


def scored(chosen: Any, rejected: Any, high: float, low: float, prompt: Any = "q") -> tuple[Any, ...]:
    return (prompt, chosen, rejected, {"chosen_score": high, "rejected_score": low})


def listed(prompt: str, responses: str, scores: str, **fields: Any) -> Table:
    """Rows of a prompt with a list of responses and one of their scores, as RRHF's own data has them."""
    table: list[tuple[list[Any], list[Any], Outcome]] = [
        (["a", "b"], [0.5, -1.5], scored("a", "b", 0.5, -1.5)),
        (["b", "a", "c"], [2, 3, 1], [scored("a", "b", 3.0, 2.0), scored("b", "c", 2.0, 1.0)]),
        (["a", "b", "c"], ["3", "2.5", "2.5"], [scored("a", "b", 3.0, 2.5), scored("a", "c", 3.0, 2.5)]),
        (["a", "b"], [1, 1], TIE),
        (["a"], [1], FEW),
        (["a", "b"], [1], "not one value for each response"),
        (["a", "b"], [1, None], f"{scores} is not a number"),
        (["a", "b"], [1, float("nan")], f"{scores} is not finite"),
        (["a", " b"], [1, 2], scored(" b", "a", 2.0, 1.0)),
    ]
    return [
        ({prompt: "q" + "!" * i, responses: own, scores: values, **fields}, _asked(outcome, "q" + "!" * i))
        for i, (own, values, outcome) in enumerate(table)
    ]


def _asked(outcome: Outcome, prompt: Any) -> Outcome:
    """Return the outcome with another prompt."""
    if isinstance(outcome, str):
        return outcome
    return [(prompt, *one[1:]) for one in (outcome if isinstance(outcome, list) else [outcome])]


RANKED: Table = [  # rank 1 is the best
    ({"prompt": "q", "responses": ["a", "b", "c"], "ranks": [2, 1, 3]}, [("q", "b", "a"), ("q", "a", "c")]),
    ({"prompt": "r", "responses": ["a", "b", "c"], "ranks": [1, 2, 2]}, [("r", "a", "b"), ("r", "a", "c")]),
    ({"prompt": "s", "responses": ["a", "b"], "ranks": [1, 1]}, TIE),
    ({"prompt": "t", "responses": ["a", "b"], "ranks": ["1", "2"]}, ("t", "a", "b")),
    ({"prompt": "u", "responses": ["a", "b"], "ranks": [1, 2, 3]}, "not one value for each response"),
    ({"prompt": "w", "responses": ["a", "b"], "ranks": [0, 1]}, ("w", "a", "b")),
    ({"prompt": "x", "responses": ["a", "b"], "ranks": [0.1, 0.9]}, "`ranks` has no ranks: 1 is the best, 2 the next"),
    ({"prompt": "y", "responses": ["a", "b"], "ranks": [-1, 1]}, "`ranks` has no ranks: 1 is the best, 2 the next"),
    ({"prompt": "v", "responses": "a", "ranks": [1]}, "responses is not a list"),
]


def rated(response: str, *ratings: Any) -> dict[str, Any]:
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {
        "response": response,
        "annotations": {aspect: {"Rating": rating, "Rationale": "…"} for aspect, rating in zip(aspects, ratings)},  # noqa: B905
        **{"model": "gpt-4", "principle": "helpfulness", "critique": "Fine.", "overall_score": 7.5},
    }


ULTRAFEEDBACK: Table = [  # openbmb/UltraFeedback: ratings of 1 to 5 as text; "N/A" is none
    (
        {"source": "evol", "instruction": prompt, "models": ["gpt-4", "llama"], "completions": completions,
         "correct_answers": ["None"], "incorrect_answers": ["None"]},
        outcome,
    )
    for prompt, completions, outcome in [
        ("q", [rated("a", "5", "4", "5", "4"), rated("b", "1", "2", "1", "2")], scored("a", "b", 4.5, 1.5)),
        ("r", [rated("a", "3", "N/A"), rated("b", "4")], scored("b", "a", 4.0, 3.0, "r")),
        ("s", [rated("a", "3"), rated("b", "3")], TIE),
        ("t", [rated("a", "N/A"), rated("b", "3")], FEW),
        ("u", [rated("a", "good"), rated("b", "3")], "Rating is not a number"),
        ("v", [{"annotations": {"x": {"Rating": "1"}}}, rated("b", "3")], "a response has no response"),
    ]
]  # fmt: skip
STACK_EXCHANGE: Table = [  # HuggingFaceH4/stack-exchange-preferences: pm_score grows with the votes
    (
        {"qid": 5, "question": prompt, "date": "2016-12-15", "metadata": ["https://ai.stackexchange.com"],
         "answers": [{"answer_id": i, "text": text, "pm_score": score, "selected": i == 1, "author": "x"}
                     for i, (text, score) in enumerate(answers)]},
        outcome,
    )
    for prompt, answers, outcome in [
        ("q", [("a", 1), ("b", 4)], scored("b", "a", 4.0, 1.0)),
        ("r", [("a", 1), ("b", 1)], TIE),
        ("s", [("a", 7), ("b", 4), ("c", 2)], [scored("a", "b", 7.0, 4.0, "s"), scored("b", "c", 4.0, 2.0, "s")]),
        ("t", [("a", 7)], FEW),
        ("u", [("a", None), ("b", 4)], "pm_score is not a number"),
    ]
]  # fmt: skip


def nemo(prompt: str, *completions: tuple[Any, str]) -> dict[str, Any]:
    ranked = [{"rank": rank, "completion": messages(("assistant", text))} for rank, text in completions]
    return {"context": messages(("user", prompt)), "completions": ranked}


def turned(prompt: str, *pairs: str) -> list[tuple[Any, ...]]:
    return [(asked(prompt), *([("assistant", text)] for text in pair)) for pair in pairs]


NEMO_RL: Table = [  # NeMo-RL's guide to DPO: "a lower rank is preferred"
    (nemo("q", (0, "a"), (1, "b")), turned("q", "ab")),
    (nemo("r", (1, "a"), (0, "b")), turned("r", "ba")),
    (nemo("s", (0, "a"), (0, "b")), TIE),
    (nemo("t", (0, "a"), (1, "b"), (2, "c")), turned("t", "ab", "bc")),
    (nemo("u", (None, "a"), (1, "b")), "rank is not a number"),
    (nemo("v", ("1", "a"), ("0", "b")), turned("v", "ba")),
]
NECTAR: Table = [  # berkeley-nest/Nectar: rank 1 is the best; the prompt is a transcript of HH
    (
        {"prompt": f"\n\nHuman: {prompt}\n\nAssistant: ", "turns": 1, "num_responses": 7, "source": ["x"],
         "good_natured": True, "answers": [{"answer": text, "model": "gpt-4", "rank": rank} for rank, text in answers]},
        outcome,
    )
    for prompt, answers, outcome in [
        ("q", [(1.0, "a"), (2.0, "b")], turned("q", "ab")),
        ("r", [(3.0, "a"), (1.0, "b"), (2.0, "c")], turned("r", "bc", "ca")),
        ("s", [(1.0, "a"), (1.0, "b")], TIE),
        ("t", [(1.0, "a"), (None, "b")], "rank is not a number"),
        ("u", [(1.0, "a"), (2.0, "b"), (2.0, "c")], turned("u", "ab", "ac")),
    ]
]  # fmt: skip
REWARD_BENCH_2: Table = [  # allenai/reward-bench-2: one chosen, several rejected; in "Ties" several chosen
    (
        {"id": "1", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c"], "subset": "Math"},
        [("q", "a", "b"), ("q", "a", "c")],
    ),
    (
        {"id": "2", "prompt": "r", "chosen": ["a", "b"], "rejected": ["c"], "subset": "Ties"},
        [("r", "a", "c"), ("r", "b", "c")],
    ),
    ({"id": "3", "prompt": "s", "chosen": ["a"], "rejected": [], "subset": "Math"}, FEW),
    ({"id": "4", "prompt": "t", "chosen": ["a"], "rejected": ["a"], "subset": "Math"}, "identical pair"),
    ({"id": "5", "prompt": "u", "chosen": ["a"], "rejected": [" b"], "subset": "Math"}, ("u", "a", " b")),
]

CANDIDATES: Table = [
    (
        {"question": "q", "responses": [{"text": "a", "score": 1}, {"text": "b", "score": 2.5}], "system": "s"},
        ([("system", "s"), ("user", "q")], answered("b"), answered("a"), {"chosen_score": 2.5, "rejected_score": 1.0}),
    ),
    ({"question": "q", "responses": [{"text": "a", "score": 1}], "system": None}, FEW),
    ({"question": "q", "responses": [{"text": "a", "score": 1}, {"text": "b", "score": 1}], "system": None}, TIE),
    ({"question": "q", "responses": [{"text": "a", "score": 1}, {"text": "b"}], "system": None},
     "a response has no score"),
    ({"question": "q", "responses": [{"text": "a"}], "system": None}, "responses are not answers with one score each"),
    ({"question": "q", "responses": [], "system": None}, "responses are not answers with one score each"),
    ({"question": "q", "responses": [{"text": "a", "score": "x"}, {"text": "b", "score": 1}], "system": None},
     "score is not a number"),
    ({"question": "q", "responses": [{"text": "a", "score": 4}, {"text": "b", "score": 3}], "system": None},
     scored("a", "b", 4.0, 3.0)),
]  # fmt: skip

TABLES: dict[str, list[Table]] = {
    "candidates": [CANDIDATES],
    "rrhf": [listed("query", "responses", "scores")],
    "scored": [listed("prompt", "responses", "scores")],
    "distilabel": [listed("instruction", "generations", "ratings", rationales=["x", "y"], model_name="gpt-4")],
    "ranked": [RANKED],
    "ultrafeedback-raw": [ULTRAFEEDBACK],
    "stack-exchange": [STACK_EXCHANGE],
    "nemo-rl": [NEMO_RL],
    "nectar": [NECTAR],
    "reward-bench-2": [REWARD_BENCH_2],
}
CASES = [(name, table) for name, tables in TABLES.items() for table in tables]


@pytest.mark.parametrize(("name", "table"), CASES, ids=[name for name, _ in CASES])
def test_rows_of_each_layout(name: str, table: Table) -> None:
    check(name, table)


def helpful(prompt: str, response: str, helpfulness: Any) -> dict[str, Any]:
    rest = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, **rest}


def test_rows_of_one_prompt_that_follow_each_other_are_a_ranking() -> None:
    """nvidia/HelpSteer2: a row for each response, helpfulness from 0 to 4; a prompt alone has nothing to compare."""
    rows = [("q", "a", 1), ("q", "b", 4), ("r", "a", 2), ("r", "b", 2), ("s", "a", 3), ("t", "a", 0), ("t", "b", "1")]
    rows += [("u", "a", 0), ("u", "b", 3), ("u", "c", 1), ("v", "a", None), ("v", "b", 1)]
    made, report = read([helpful(*row) for row in rows])
    assert made == [
        scored("b", "a", 4.0, 1.0),
        scored("b", "a", 1.0, 0.0, "t"),
        scored("b", "c", 3.0, 1.0, "u"),
        scored("c", "a", 1.0, 0.0, "u"),
    ]
    assert (report.rule, report.read, report.left_out) == ("helpsteer", 12, {TIE: 1, FEW: 1})
    assert report.rejected == {"helpfulness is not a number": 1}


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_one_prompt_are_a_ranking_wherever_they_stand(seed: int) -> None:
    """Shuffled over several blocks, with a row between them that cannot be used; prompts may be messages too."""
    prompts: list[Any] = [f"q{i}" for i in range(700)]
    if seed == 2:
        prompts = [messages(("user", prompt)) for prompt in prompts]
    rows = [helpful(prompt, f"a{i}", i) for prompt in prompts for i in range(3)] + [{"prompt": "q5"}]
    random.Random(seed).shuffle(rows)
    data = Preferences.from_rows(rows)
    assert (data.report.read, data.report.left_out, data.report.rejected) == (2101, {}, {"missing column": 1})
    groups: dict[str, list[Any]] = {}
    for row in data:
        groups.setdefault(row["prompt_id"], []).append(row)
    for group in groups.values():
        example = draft(group, "ranking")
        assert [response["content"] for response in example.responses] == ["a2", "a1", "a0"]
        assert example.comparisons == [(0, 1), (0, 2), (1, 2)]
    assert len(groups) == 700


def test_one_ranking_for_each_prompt_with_its_tools() -> None:
    """The same question with other tools is another prompt."""
    tools = [{"name": "f"}, {"name": "g"}]
    rows = [
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, i], "tools": [tool]} for i, tool in enumerate(tools * 2)
    ]
    made, report = read(rows)
    assert len(made) == 3
    assert report.left_out == {TIE: 1}
    assert len({row["ranking"] for row in Preferences.from_rows(rows)}) == 2


def test_a_ranking_stands_for_one_prompt() -> None:
    """Otherwise answers to one question would be compared with those to another."""
    rows = [{"prompt": f"q{i // 2}", "chosen": f"a{i}", "rejected": "b", "ranking": "r"} for i in range(4)]
    made, report = read(rows)
    assert [row[0] for row in made] == ["q0", "q0"]
    assert report.rejected == {"ranking stands for two prompts": 2}


LAYOUTS: dict[str, Callable[[list[Any], list[int]], list[dict[str, Any]]]] = {
    "rrhf": lambda texts, values: [{"query": "q", "responses": texts, "scores": values}],
    "scored": lambda texts, values: [{"prompt": "q", "responses": texts, "scores": values}],
    "distilabel": lambda texts, values: [{"instruction": "q", "generations": texts, "ratings": values}],
    "ranked": lambda texts, values: [{"prompt": "q", "responses": texts, "ranks": [9 - value for value in values]}],
    "ultrafeedback-raw": lambda texts, values: [
        {"instruction": "q", "completions": [rated(*one) for one in zip(texts, values, strict=True)]}
    ],
    "stack-exchange": lambda texts, values: [
        {"question": "q", "answers": [{"text": t, "pm_score": v} for t, v in zip(texts, values, strict=True)]}
    ],
    "nectar": lambda texts, values: [
        {"prompt": "q", "answers": [{"answer": t, "rank": 9 - v} for t, v in zip(texts, values, strict=True)]}
    ],
    "nemo-rl": lambda texts, values: [
        {
            "context": messages(("user", "q")),
            "completions": [
                {"completion": messages(("assistant", t)), "rank": 9 - v} for t, v in zip(texts, values, strict=True)
            ],
        }
    ],
    "helpsteer": lambda texts, values: [helpful("q", *one) for one in zip(texts, values, strict=True)],
}
UNUSABLE = {
    "": "empty rejected",
    " \n": "white-space-only rejected",
    "\u200b": "invisible rejected",
    "a\0": "NUL character",
}


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.sampled_from(list(UNUSABLE))), min_size=2, max_size=6))
def test_a_blank_response_leaves_the_others_compared(name: str, ranking: list[tuple[int, str | None]]) -> None:
    """Each is counted once, with its reason; every two others of different values are compared."""
    texts = [f"a{i}" if blank is None else blank for i, (_, blank) in enumerate(ranking)]
    rows = LAYOUTS[name](texts, [value for value, _ in ranking])
    values = {f"a{i}": value for i, (value, blank) in enumerate(ranking) if blank is None}
    expected = {(a, b) for a in values for b in values if values[a] > values[b]}
    bad = Counter(UNUSABLE[blank] for _, blank in ranking if blank is not None)
    if not expected:
        with pytest.raises(UserError, match="|".join([f"{bad[one]} {one}" for one in bad] or [TIE])):
            Preferences.from_rows(rows, format=name, max_rejected=1.0)
        return
    preferences = Preferences.from_rows(rows, format=name, max_rejected=1.0)
    assert preferences.report.rejected == bad
    example = draft(list(preferences), "ranking")
    order = [response["content"] for response in example.responses]
    assert {(order[i], order[j]) for i, j in example.comparisons} == expected


def test_a_response_that_is_null_or_no_text_is_counted_too() -> None:
    rows = [{"prompt": "q", "responses": ["a", None, 7, "b"], "scores": [4, 3, 2, 1]}]
    made, report = read(rows)
    assert made == [scored("a", "b", 4.0, 1.0)]
    assert report.rejected == {"empty rejected": 1, "rejected is not text or messages": 1}


@pytest.mark.parametrize("name", ["rrhf", "ranked", "nectar"])
def test_a_stored_ranking_gives_all_comparisons_back(name: str) -> None:
    """Four responses of which two are tied: five of six comparisons."""
    responses, ranks = ["a", "b", "c", "d"], [2, 1, 4, 2]
    row: dict[str, Any] = {
        "rrhf": {"query": "q", "responses": responses, "scores": [-rank for rank in ranks]},
        "ranked": {"prompt": "q", "responses": responses, "ranks": ranks},
        "nectar": {"prompt": "q", "answers": [{"answer": a, "rank": r} for a, r in zip(responses, ranks, strict=True)]},
    }[name]
    example = draft(list(Preferences.from_rows([row])), "ranking")
    order = [said([response]) for response in example.responses]
    assert order == ["b", "a", "d", "c"]
    assert example.comparisons == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
