"""Columns of public data sets that mean nothing for training: read past, with a warning beside pairs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.align.data.formats.tables import sharegpt
from tests.align.data.unread_columns import ANSWER, PAIR, ROWS, chat, loaded, prose, turns

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
