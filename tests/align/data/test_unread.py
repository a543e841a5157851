"""Columns that no format reads: those that may matter are refused by name, ordinary metadata is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from align.data import Preferences
from align.data.load_report import LoadReport
from align.data.unread import Unread, judge
from align.errors import UserError
from tests.align.data.formats.tables import messages, sharegpt

Cell = Callable[[int], Any]
ROWS = 24


def table(cells: dict[str, Any], count: int = ROWS) -> list[dict[str, Any]]:
    """Rows of these columns; a function gives the value of each row."""
    return [{name: cell(i) if callable(cell) else cell for name, cell in cells.items()} for i in range(count)]


def loaded(cells: dict[str, Any], **options: Any) -> LoadReport:
    return Preferences.from_rows(table(cells), **options).report


def refusal(cells: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as error:
        loaded(cells, **options)
    assert str(error.value).count("\n") < 3
    return str(error.value)


def prose(i: int) -> str:
    return f"The bridge number {i} was built a long time ago"


ANSWER: dict[str, Any] = {"prompt": lambda i: f"question {i}", "completion": lambda i: f"answer {i}"}
PAIR: dict[str, Any] = {"prompt": lambda i: f"question {i}", "chosen": prose, "rejected": lambda i: f"answer {i}"}


def turns(i: int) -> list[dict[str, str]]:
    return sharegpt(("human", f"question {i}"), ("gpt", f"answer {i}"))


def chat(i: int) -> list[dict[str, str]]:
    return messages(("user", f"question {i}"), ("assistant", f"answer {i}"))


PUBLIC: dict[str, tuple[str, dict[str, Any]]] = {
    "OpenHermes-2.5": (
        "sharegpt",
        {
            **dict.fromkeys(("topic", "model_name", "language", "id", "idx", "hash", "avatarUrl", "system_prompt")),
            "custom_instruction": lambda i: [None, False, True][i % 3],
            "model": lambda i: ["GPT-4", None][i % 2],
            "skip_prompt_formatting": lambda i: [None, False, True][i % 3],
            "category": lambda i: ["orca", "general", None][i % 3],
            "views": lambda i: [None, 10 * i][i % 2],
            "title": lambda i: [None, prose(i)][i % 2],
            "source": "airoboros2.2",
            "conversations": turns,
        },
    ),
    "Tulu-3-SFT": ("messages", {"id": lambda i: f"oasst1_{i}", "messages": chat, "source": "ai2/oasst1_converted"}),
    "OASST, conversations": (
        "messages",
        {
            "messages": chat,
            "message_tree_id": lambda i: f"{i:08x}-2aed",
            "tree_state": "ready_for_export",
            "lang": "no",  # Norwegian
            "created_date": "2023-02-05T14:23:50.983374+00:00",
            "message_count": 2,
        },
    ),
    "no_robots": (
        "messages",
        {"prompt": lambda i: f"question {i}", "prompt_id": lambda i: f"{i:064x}", "messages": chat, "category": "Chat"},
    ),
    "UltraChat": (
        "messages",
        {"prompt": lambda i: f"question {i}", "prompt_id": lambda i: f"{i:064x}", "messages": lambda i: chat(i) * 2},
    ),
    "Alpaca-GPT4": (
        "alpaca",
        {"instruction": lambda i: f"task {i}", "input": "", "output": lambda i: f"answer {i}"}
        | {"text": lambda i: f"Below is an instruction.\n\n### Instruction:\ntask {i}\n\n### Response:\nanswer {i}"},
    ),
    "WizardLM": ("sharegpt", {"idx": lambda i: f"WYrEpXq_{i}", "conversations": turns}),
    "LIMA": ("sharegpt", {"conversations": lambda i: [f"question {i}", f"answer {i}"], "source": "stackexchange"}),
    "FineWeb": (
        "text",
        {"text": prose, "id": "<urn:uuid:1>", "dump": "CC-MAIN-2013-20", "url": "http://e.org", "language_score": 0.97}
        | {"file_path": "s3://x", "language": "en", "token_count": 125, "date": "2013-05-18T05:48:54Z"},
    ),
    "metadata in an object": (
        "prompt-completion",
        {**ANSWER, "metadata": {"tokens": 12, "language": "no", "hash": "ab", "difficulty": "hard", "turns": [1, 2]}},
    ),
    "metadata in columns": (
        "prompt-completion",
        {**ANSWER, "temperature": 0.7, "top_p": 1, "seed": 3, "year": 2020, "num_turns": 2, "answer_length": 7}
        | {"created_at": 1.7e9, "difficulty": "easy", "model": "m", "license": "cc-by-4.0", "n_tokens": "12"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "cells"), PUBLIC.values(), ids=PUBLIC)
def test_public_demonstrations_with_their_metadata_are_read(rule: str, cells: dict[str, Any]) -> None:
    report = loaded(cells)
    assert (report.rule, report.kept, report.noted) == (rule, ROWS, {})


@pytest.mark.parametrize("weights", [(0.0, 1.0), (None, None), (0, 1)])
def test_slimorca_has_weights_of_questions_that_mean_nothing(weights: tuple[Any, Any]) -> None:
    def row(i: int) -> list[dict[str, Any]]:
        said = sharegpt(("system", "Be brief."), ("human", f"question {i}"), ("gpt", f"answer {i}"))
        return [{**turn, "weight": weight} for turn, weight in zip(said, (None, *weights), strict=True)]

    report = loaded({"conversations": row})
    assert (report.kept, report.noted, report.warnings) == (ROWS, {}, ())


def test_demonstrations_that_need_a_mapping() -> None:
    dolly: dict[str, Any] = {"instruction": prose, "context": "", "response": prose, "category": "open_qa"}
    assert loaded(dolly, columns={"input": "context", "output": "response"}).rule == "alpaca"
    maths: dict[str, Any] = {"problem": prose, "generated_solution": prose, "expected_answer": lambda i: f"{i}"}
    columns = {"prompt": "problem", "chosen": "generated_solution"}
    assert loaded({**maths, "problem_source": "augmented_math"}, columns=columns).rule == "demonstration"
    judged = {**maths, "is_correct": lambda i: i % 2 == 0}
    assert "is_correct may say that an answer is bad" in refusal(judged, columns=columns)
    assert loaded(judged, columns=columns, format="demonstration").kept == ROWS


VERDICTS: dict[str, Any] = {
    "flag": lambda i: i % 2 == 0,
    "all_false": False,
    "all_true": True,
    "as_text": "False",
    "train": False,
    "loss": lambda i: i % 2,
    "outcome": lambda i: ["pass", "fail"][i % 2],
    "status": lambda i: ["done", "Rejected"][i % 2],
    "category": "bad",
    "type": "👎",
    "sentiment": lambda i: ["positive", "negative"][i % 2],
    "opinion": lambda i: ["very good", "not good"][i % 2],
    "q": lambda i: i % 5,
    "q_as_text": lambda i: f"{i % 5}.0",
    "golden": "N",
    "keep": lambda i: "yn"[i % 2],
    "accept": lambda i: "AR"[i % 2],
    "comment": "This is wrong.",
    "stars": "★★☆",
    "mark": "3/5",
    "sign": lambda i: "+-"[i % 2],
    "feedback.name": {"name": "x"},
    "info.ok": lambda i: str({"id": i, "ok": False}),
    "elo": 1000,
    "Güte": 1,
    "label_id": lambda i: i % 2,
    "upvote_count": 3,
    "trust_level": 2,
    "rating": "4 stars",
    "meta.label": lambda i: {"label": i % 2 == 0},
    "info.rating": lambda i: [{"rating": i}],
    "extra.ok": lambda i: json.dumps({"id": i, "ok": False}),
    "metadata.review.outcome": {"review": {"outcome": "rejected"}},
    "decision": lambda i: ["a", "b", "c"][i % 3],
    "result": lambda i: ["AC", "WA"][i % 2],
    "评价": lambda i: ["好", "差"][i % 2],
    "kind": lambda i: ["positive_sample", "hard_negative"][i % 2],
    "class": lambda i: ["high quality", "low quality"][i % 2],
    "state": lambda i: ["published", "removed"][i % 2],
    "reject_reason": lambda i: ["", "off topic"][i % 2],
    "deleted_at": lambda i: [None, "2024-01-02"][i % 2],
    "emoji": lambda i: ["ok ✅", "no ❌"][i % 2],
    "skip": lambda i: i % 2 == 0,
    "source": lambda i: ["good", "rejected"][i % 2],
    "metadata.tier": lambda i: {"tier": ["gold", "bronze"][i % 2]},
}


@pytest.mark.parametrize("name", VERDICTS)
@pytest.mark.parametrize(
    "row", [ANSWER, {"prompt": prose, "chosen": prose}, {"text": prose}, {"messages": chat}], ids=lambda row: [*row][-1]
)
def test_what_may_be_a_verdict_on_an_answer_to_imitate_is_refused(row: dict[str, Any], name: str) -> None:
    said = refusal({**row, name.split(".")[0]: VERDICTS[name]})
    assert f" {name} may say that an answer is bad; data.format=" in said
    assert "label" in said


FLIPS: dict[str, Any] = {
    "p_chosen": lambda i: 0.4 + i / 100,
    "is_flipped": lambda i: i % 2 == 0,
    "swapped": lambda i: i % 2,
    "reversed": "yes",
    "chosen_index": 1,
    "chosen_is_better": False,
    "rejected_is_better": lambda i: i % 3 == 0,
    "is_chosen": lambda i: i % 2 == 0,
    "correct_label": lambda i: i % 2,
    "polarity": lambda i: [-1, 1][i % 2],
    "reward_gap": lambda i: 3 - i,
    "gold": lambda i: "AB"[i % 2],
    "order": lambda i: i % 2,
    "status": lambda i: ["as given", "swapped"][i % 2],
    "sign": lambda i: "+-"[i % 2],
    "agreement": lambda i: i % 2,
    "b_is_chosen": lambda i: i % 2 == 0,
    "meta.flipped": lambda i: {"flipped": i % 2 == 0},
    "human_agrees": lambda i: ["yes", "no", None, "tie"][i % 4],
    "judge_says": lambda i: ["chosen better", "rejected better"][i % 2],
    "is_noisy": lambda i: i % 2,
    "keep": lambda i: i % 2 == 0,
    "vertauscht": lambda i: i % 2 == 0,
    "annotator_agreement": lambda i: ["agree", "disagree"][i % 2],
    "majority": lambda i: ["A", "B", "equal"][i % 3],
    "gpt4": "rejected",
    "scores": lambda i: [[9, 2], [2, 9]][i % 2],
}


@pytest.mark.parametrize(
    ("names", "values", "refused"),
    [
        (("chosen_reward", "rejected_reward"), (9, 2), True),
        (("quality_chosen", "quality_rejected"), (0.9, 0.2), True),
        (("chosen_loss", "rejected_loss"), (1, 2), True),
        (("chosen_tokens", "rejected_tokens"), (9, 2), False),
    ],
)
def test_numbers_of_the_sides_that_contradict_them(
    names: tuple[str, str], values: tuple[float, float], refused: bool
) -> None:
    """In 2 of 24 rows they are against the sides, or in 8."""

    def against(every: int) -> dict[str, Any]:
        return {name: lambda i, k=k: values[k if i % every else 1 - k] + i / 1000 for k, name in enumerate(names)}

    assert loaded({**PAIR, **against(12)}).kept == ROWS
    if refused:
        assert f" {names[0]} may say that the worse answer is chosen" in refusal({**PAIR, **against(3)})
    else:
        assert loaded({**PAIR, **against(3)}).kept == ROWS


@pytest.mark.parametrize("name", FLIPS)
def test_what_may_turn_a_pair_round_is_refused(name: str) -> None:
    said = refusal({**PAIR, name.split(".")[0]: FLIPS[name]})
    assert f" {name} may say that the worse answer is chosen; data.format=pairwise" in said


NEUTRAL: dict[str, Any] = {
    "flipped": False,
    "reversed": "no",
    "chosen_index": 0,
    "chosen_is_correct": True,
    "rejected_is_correct": False,
    "is_english": lambda i: i % 2 == 0,
    "chosen_tokens": lambda i: i,
    "chosen_model": "m",
    "reward_gap": lambda i: i,
    "seconds_difference": lambda i: -i,
    "seed": lambda i: [-1, 7][i % 2],
    "meta": lambda i: {"tags": ["a", "b"], "n": i},
    "rationale": prose,
    "gpt4_explanation": prose,
    "annotations": lambda i: [{"text": prose(i)}],
    "license": "Creative Commons Attribution 4.0",
    "subject": lambda i: ["High School US History and more", "College Mathematics and more"][i % 2],
    "hash": lambda i: f"{i:064x}",
    "label": None,
    "subset": lambda i: ["chat", "safety"][i % 2],
    "task_type": lambda i: ["open", "closed"][i % 2],
    "page_url": lambda i: f"https://example.org/{i}",
    "query": lambda i: f"question {i}",
    "p_chosen": lambda i: 0.5 + i / 100,
    "rejected_probability": lambda i: i / 100,
    "toxicity_probability": lambda i: i / 100,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_other_columns_beside_pairs_are_warned_of(name: str) -> None:
    assert loaded({**PAIR, name: NEUTRAL[name]}).warnings == (f'column "{name}" is not read',)


PARTS: dict[str, Any] = {
    **dict.fromkeys(("passage", "article", "background", "title", "post", "code", "zz", "sql_schema"), prose),
    "persona": lambda i: f"pirate {i}",
    "schema": lambda i: f"T(a{i})",
    "documents": lambda i: [prose(i)],
    "choices": ["Paris", "Rome"],
    "memory": lambda i: messages(("user", f"Hi {i}")),
    "topic": lambda i: prose(i) * 3,
    "table": [[1, "x"]],
    "info.text": lambda i: {"text": prose(i)},
    "sometimes": lambda i: prose(i) if i > ROWS - 3 else None,
    "keyword": lambda i: f"word{i}",
    "sentence1": lambda i: f"He goes {i}",
    "concepts": lambda i: [f"dog{i}", "cat"],
    "grid": lambda i: [["a"], [f"b{i}"]],
    "apis": [{"name": "search", "description": "d"}],
    "available": lambda i: [{"name": f"f{i}", "parameters": {}}],
    "photo": lambda i: f"images/{i}.png",
    "sound_file": lambda i: f"{i}.wav",
    "source": lambda i: prose(i) * 2,
    "metadata.system_prompt": lambda i: {"system_prompt": prose(i)},
    "clinical_note": prose,
}


@pytest.mark.parametrize("name", PARTS)
def test_what_may_be_a_part_of_the_prompt_is_refused_beside_pairs(name: str) -> None:
    said = refusal({**PAIR, name.split(".")[0]: PARTS[name]})
    assert f"As pairwise it would lose {name}, which looks like a part of the data" in said


def test_text_beside_an_instruction_is_its_rendering_or_rejects_the_row() -> None:
    row: dict[str, Any] = {"instruction": lambda i: f"Classify {i}.", "output": "good"}
    assert loaded({**row, "text": lambda i: f"### Instruction: Classify {i}.\n### Response: good"}).kept == ROWS
    assert "`text` is not the instruction with its answer; if it belongs to the prompt, call it `input`" in refusal(
        {**row, "text": prose}
    )
    assert loaded({**row, "text": prose}, columns={"input": "text"}).kept == ROWS


INSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "candidates": (
        {
            "prompt": "q",
            "candidates": [{"text": f"{k}", "score": k, "is_valid": k == 0} for k in range(2)],
        },
        "candidates.is_valid may say that the worse answer is chosen",
    ),
    "openai": (
        {
            "input": lambda i: {"messages": chat(i)[:1], "context": prose(i)},
            **{
                f"{side}preferred_output": lambda i, side=side: messages(("assistant", f"{side} {i}"))
                for side in ("", "non_")
            },
        },
        "it would lose input.context",
    ),
    "webgpt": (
        {
            "question": lambda i: {"full_text": f"q{i}", "id": f"{i}", "context": prose(i)},
            "answer_0": "a",
            "answer_1": "b",
            "score_0": 1,
            "score_1": -1,
        },
        "it would lose question.context",
    ),
}


@pytest.mark.parametrize(("cells", "said"), INSIDE.values(), ids=INSIDE)
def test_fields_inside_the_columns_of_a_format_are_judged(cells: dict[str, Any], said: str) -> None:
    assert said in refusal(cells)


def test_what_a_path_leaves_in_its_object_is_judged() -> None:
    cells = {"ex": lambda i: {"q": f"q{i}", "a": f"a{i}", "ok": i % 2 == 0}}
    columns = {"prompt": "ex.q", "completion": "ex.a"}
    assert "ex.ok may say that an answer is bad" in refusal(cells, columns=columns)
    assert loaded(cells, columns=columns, format="prompt-completion").warnings == ('column "ex.ok" is not read',)


@pytest.mark.parametrize("before", ["none", "n/a", "-", "x"])
def test_a_placeholder_that_becomes_a_text_in_late_rows(before: str) -> None:
    rows = table({**PAIR, "details": before}, 1010)
    rows[1004:] = table({**PAIR, "details": prose}, 6)
    with pytest.raises(UserError, match="it would lose details"):
        Preferences.from_rows(rows)


def test_columns_that_need_no_mapping_or_one_that_works() -> None:
    chats = {"conversation": lambda i: chat(i), "turn": 1, "language": "English", "toxic": False}
    said = refusal(chats)
    assert "data.columns='{messages: conversation}' data.format=messages (if toxic says nothing of the answers)" in said
    assert loaded(chats, columns={"messages": "conversation"}, format="messages").kept == ROWS
    rated = {"prompt": "q", "responses": ["a", "b"], "toxicity_scores": [0.1, 0.9]}
    assert "scores: COLUMN" in refusal(rated)


def test_the_mapping_of_a_refusal_keeps_a_passage() -> None:
    cells = {**PAIR, "passage": prose}
    assert "data.columns='{instruction: prompt, input: passage}'" in refusal(cells)
    data = Preferences.from_rows(table(cells), columns={"instruction": "prompt", "input": "passage"})
    assert data[3]["prompt"][0]["content"] == f"question 3\n{prose(3)}"
    assert loaded(cells, format="pairwise").kept == ROWS


@pytest.mark.parametrize(
    ("row", "name", "value", "said"),
    [
        (PAIR, "passage", prose(1), "As pairwise it would lose passage"),
        (PAIR, "flipped", True, "flipped may say that the worse answer is chosen"),
        (ANSWER, "ok", False, "ok may say that an answer is bad"),
        (ANSWER, "status", "rejected", "status may say that an answer is bad"),
    ],
)
@pytest.mark.parametrize("before", [{}, {"status": "done"}], ids=["new", "known"])
def test_columns_that_begin_to_matter_in_late_rows(
    row: dict[str, Any], name: str, value: Any, said: str, before: dict[str, Any]
) -> None:
    rows = table({**row, **before}, 1005)
    rows[-1] = {**rows[-1], name: value}
    first = 1001 if name in before else 1005
    with pytest.raises(UserError, match=f"rows:{first} and following: {said}"):
        Preferences.from_rows(rows)
    assert len(Preferences.from_rows(rows, format="pairwise" if row is PAIR else "prompt-completion")) == 1005


def test_most_margins_against_the_sides_are_refused() -> None:
    assert loaded({**PAIR, "margin": lambda i: [-1, 1, 1][i % 3]}).noted == {"the margin is negative": 8}
    assert "the margin is negative in 16 of 24 rows" in refusal({**PAIR, "margin": lambda i: [-1, -1, 1][i % 3]})


def test_a_label_that_is_always_the_same_is_remarked_on() -> None:
    cells: dict[str, Any] = {"prompt": prose, "response_1": "a", "response_2": "b", "better": 1}
    assert loaded(cells).warnings == ("better is 1 in all 24 rows: is the better answer always at the same place?",)
    assert loaded(cells | {"better": lambda i: 1 + i % 2}).warnings == ()
    assert Preferences.from_rows(table(cells, 19)).report.warnings == ()


def test_texts_with_brackets_are_texts() -> None:
    """A list in TeX is no list, and no warning of Python is seen."""
    texts = [f"[1, \\d] is an interval with the number {i}" for i in range(3)]
    assert judge({"zz": texts}, "pairs").parts == ["zz"]
    assert judge({"zz": [f'{{"id": {i}, "lang": "no"}}' for i in range(3)]}, "demonstrations") == Unread()


def test_nothing_is_said_of_empty_columns_or_of_prompts_alone() -> None:
    assert judge({"label": [None, "", float("nan")], "passage": []}, "demonstrations") == Unread()
    assert judge({"score": [1, 2], "n": [True]}, "prompts") == Unread()
