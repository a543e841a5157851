"""Rows that are token ids already: read under the names of trainers, used as they are."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences, tokenize
from align.data.encoding import end_of_turn_id
from align.errors import UserError
from align.scoring.scorer_inputs import prompt_text
from tests.align.data.formats.tables import Outcome, check

Table = list[tuple[dict[str, Any], Outcome]]

_GOOD = ([("tokens", "1 2")], [("tokens", "5 0")], [("tokens", "6 0")])
_LABELLED = {
    **{"chosen_input_ids": [1, 2, 5, 0], "chosen_labels": [-100, -100, 5, 0]},
    **{"rejected_input_ids": [1, 2, 6, 0], "rejected_labels": [-100, -100, 6, 0]},
}
TABLES: dict[str, list[Table]] = {
    "token-pairs": [
        [
            ({"prompt_ids": [1, 2], "chosen_ids": [5, 0], "rejected_ids": [6, 0]}, _GOOD),
            ({"prompt_ids": [1, 2], "chosen_ids": [5, 0], "rejected_ids": [5, 0]}, "identical pair"),
        ],
        [(_LABELLED, _GOOD), (_LABELLED | {"chosen_labels": [-100, -100, 5]}, "not one label for each token")],
    ],
    "tokens": [
        [
            ({"input_ids": [1, 2, 5], "labels": [-100, -100, 5]}, ([("tokens", "1 2")], [("tokens", "5")], None)),
            ({"input_ids": [1, 2, 5], "labels": [-100, -100, 4]}, "labels are neither the tokens nor −100"),
        ],
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_become_what_the_table_says(name: str) -> None:
    for table in TABLES[name]:
        check(name, table)


@pytest.fixture
def ids(chatml: Any) -> dict[str, list[int]]:
    """A prompt and two answers as ids that the tokenizer itself would not give: letter by letter."""
    end = end_of_turn_id(chatml)
    letters = {name: chatml("".join(text))["input_ids"] for name, text in (("p", "H"), ("c", "y"), ("r", "n"))}
    return {"prompt": letters["p"] * 3, "chosen": [*letters["c"] * 2, end], "rejected": [*letters["r"] * 2, end]}


def layouts(ids: dict[str, list[int]]) -> list[dict[str, Any]]:
    """The same pair as TRL prepares it now, as it did before, and whole with labels as LLaMA-Factory does."""
    prompt, chosen, rejected = ids["prompt"], ids["chosen"], ids["rejected"]
    labelled = {
        **{"chosen_input_ids": prompt + chosen, "chosen_labels": [-100] * len(prompt) + chosen},
        **{"rejected_input_ids": prompt + rejected, "rejected_labels": [-100] * len(prompt) + rejected},
    }
    return [
        {f"{name}_ids": own for name, own in ids.items()},
        {f"{name}_input_ids": own for name, own in ids.items()},
        labelled,
        labelled | {"prompt_input_ids": prompt},
        {f"{name}_input_ids": [0, *own] for name, own in ids.items()}
        | {f"{name}_attention_mask": [0] + [1] * len(own) for name, own in ids.items()},
    ]


@pytest.mark.parametrize("layout", range(5))
def test_pairs_of_ids_are_used_as_they_are(layout: int, ids: dict[str, list[int]], chatml: Any) -> None:
    data = Preferences.from_rows([layouts(ids)[layout]])
    assert data.report.rule == "token-pairs"
    tokenized = tokenize(data, chatml, max_length=20)
    [example] = tokenized
    assert (example.prompt_ids, example.responses) == (ids["prompt"], [ids["chosen"], ids["rejected"]])
    assert not tokenized.report.noted
    assert prompt_text(tokenized.preferences[0]["prompt"]) == "HHH"
    assert tokenized.preferences[0]["chosen"][0]["content"] == "yy"


@pytest.mark.parametrize(
    "mask",
    [
        {"labels": [-100, -100, 11, -100, 13, 14, -100]},
        {"completion_mask": [0, 0, 0, 0, 1, 1, 0]},
        {"assistant_masks": [0, 0, 1, 0, 1, 1, 0]},
    ],
)
def test_the_last_trained_tokens_are_the_demonstration(mask: dict[str, list[int]], chatml: Any) -> None:
    row = {"input_ids": [8, 9, 11, 12, 13, 14, 15], **mask, "attention_mask": [0, 1, 1, 1, 1, 1, 1]}
    data = Preferences.from_rows([row])
    assert data.report.rule == "tokens"
    tokenized = tokenize(data, chatml, max_length=20, unit="demonstration")
    assert (tokenized[0].prompt_ids, tokenized[0].responses) == ([9, 11, 12], [[13, 14]])
    assert list(tokenized.report.noted) == ["a response of token ids does not end in the end of turn"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen_ids": [5], "rejected_ids": [6]}, "nothing says where the prompt ends"),
        ({"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": ["6"]}, "rejected_ids is not a list of token ids"),
        ({"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [5]}, "identical pair"),
        ({"input_ids": [1, 2], "labels": [-100]}, "not one label for each token"),
        ({"input_ids": [1, 2], "labels": [-100, 3]}, "labels are neither the tokens nor −100"),
        ({"input_ids": [1, 2], "labels": [-100, -100]}, "no token is trained"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "every token is trained, so there is no prompt"),
        ({"prompt": [{"role": "tokens", "content": "x"}]}, "prompt is not a list of token ids"),
        ({"prompt": "x", "chosen": [{"role": "tokens", "content": "5"}]}, "the response is token ids"),
        (
            {"chosen_ids": [1, 5], "chosen_labels": [-100, 5], "rejected_ids": [2, 6], "rejected_labels": [-100, 6]},
            "prompts differ before the last turn",
        ),
        (
            {"prompt_ids": [2], "rejected_ids": [1, 6], "rejected_labels": [-100, 6]}
            | {"chosen_ids": [1, 5], "chosen_labels": [-100, 5]},
            "disagree about the prompt",
        ),
        ({"prompt_ids": [1], "prompt_attention_mask": [1, 1], "chosen_ids": [5], "rejected_ids": [6]}, "one bit"),
    ],
)
def test_bad_rows_of_ids(row: dict[str, Any], reason: str) -> None:
    name = "token-pairs" if "chosen_ids" in row else "auto"
    good = {"prompt_ids": [1], "chosen_labels": None, "chosen_ids": [7], "rejected_ids": [8]}
    rows = [good, {**dict.fromkeys(good), **row}] if name != "auto" else [row]
    with pytest.raises(UserError, match=reason):
        Preferences.from_rows(rows, format=name, max_rejected=0)


def test_an_id_that_the_tokenizer_does_not_have_rejects_the_row(chatml: Any) -> None:
    data = Preferences.from_rows([{"prompt_ids": [1, len(chatml)], "chosen_ids": [5], "rejected_ids": [6]}])
    with pytest.raises(UserError, match="token id that the tokenizer does not have"):
        tokenize(data, chatml, max_length=20)


@pytest.mark.parametrize("row", [{"input_ids": [1, 2]}, {"input_ids_chosen": [1, 2], "input_ids_rejected": [1, 3]}])
def test_ids_without_the_end_of_the_prompt_are_refused_with_what_is_needed(row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"give prompt_ids, chosen_ids and rejected_ids.*tokenizer\.decode"):
        Preferences.from_rows([row])


def test_columns_under_other_names_are_mapped(ids: dict[str, list[int]]) -> None:
    columns = {"prompt_ids": "p", "chosen_ids": "good", "rejected_ids": "bad"}
    row = {"p": ids["prompt"], "good": ids["chosen"], "bad": ids["rejected"]}
    assert Preferences.from_rows([row], columns=columns).report.rule == "token-pairs"


def test_prompts_of_ids_are_not_read_as_text() -> None:
    with pytest.raises(UserError, match="decode them in the file"):
        prompt_text(Preferences.from_rows([{"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [6]}])[0]["prompt"])
