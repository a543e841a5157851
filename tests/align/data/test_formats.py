"""Formats: how they are recognised, and what each makes of its rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data import Preferences
from align.data.encoding import chat_template
from align.data.formats import BUILT_IN, Format, Sample, find_format, known_formats
from align.data.formats.trl import shared_words
from align.errors import UserError

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "Hello there"}
GOOD = {"role": "assistant", "content": "Hello yourself"}
BAD = {"role": "assistant", "content": "Go away"}


def text(content: str) -> list[dict[str, str | None]]:
    return [{"role": None, "content": content}]


def only(row: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    """Load one row; return the rule that matched and the row without what is null."""
    preferences = Preferences.from_rows([row], **options)
    return preferences.report.rule, {name: value for name, value in preferences[0].items() if value is not None}


@pytest.mark.parametrize(
    ("row", "rule", "expected"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "pairwise", (text("a"), text("b"), text("c"))),
        ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, "pairwise", ([SYSTEM, USER], [GOOD], [BAD])),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "pairwise", (text("a"), text("b"), None)),
        (
            {"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
            "trl-implicit",
            ([SYSTEM, USER], [GOOD], [BAD]),
        ),
        (
            {"chosen": "The sky is blue", "rejected": "The sky is black"},
            "trl-implicit",
            (text("The sky is"), text(" blue"), text(" black")),
        ),
        (
            {
                "prompt": USER["content"],
                "prompt_id": "p",
                "chosen": [USER, GOOD],
                "rejected": [USER, BAD],
                "messages": [USER, GOOD],
                "score_chosen": 8,
                "score_rejected": 2,
            },
            "ultrafeedback",
            ([USER], [GOOD], [BAD]),
        ),
        ({"prompt": "a", "chosen": "b"}, "demonstration", (text("a"), text("b"), None)),
        ({"prompt": "a", "completion": "b"}, "prompt-completion", (text("a"), text("b"), None)),
        ({"prompt": [USER], "completion": [GOOD]}, "prompt-completion", ([USER], [GOOD], None)),
        ({"messages": [USER, GOOD]}, "messages", ([USER], [GOOD], None)),
        ({"prompt": "a"}, "prompt", (text("a"), None, None)),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            "hh-rlhf",
            ([{"role": "user", "content": "a"}], [GOOD | {"content": "b"}], [GOOD | {"content": "c"}]),
        ),
    ],
)
def test_format_by_columns(row: dict[str, Any], rule: str, expected: tuple[Any, ...]) -> None:
    found, loaded = only(row)
    assert found == rule
    assert tuple(loaded.get(name) for name in ("prompt", "chosen", "rejected")) == expected


def panda(*votes: object, **changes: object) -> dict[str, Any]:
    labels = {f"annotator{number}": vote for number, vote in enumerate(votes, 1)}
    return {"instruction": "a", "input": "", "response1": "one", "response2": "two", "idx": 7} | labels | changes


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        (panda(1, 1, 2), "a", "one", "two"),
        (panda(2, 0, 2, input="b"), "a\nb", "two", "one"),
        (panda(2, 2, 2, input=None), "a", "two", "one"),
    ],
)
def test_pandalm_majority(row: dict[str, Any], prompt: str, chosen: str, rejected: str) -> None:
    rule, loaded = only(row)
    assert rule == "pandalm"
    assert [loaded[name] for name in ("prompt", "chosen", "rejected")] == [text(prompt), text(chosen), text(rejected)]


def test_pandalm_rows_without_a_better_response() -> None:
    bad = [panda(0, 0, 1), panda(0, 1, 2), panda(1, 1, 3), panda(1, 1, None), panda(1, 1, 1, response2="")]
    report = Preferences.from_rows([panda(1, 1, 1), *bad], max_rejected=0.9).report
    assert report.rejected == {
        "tie between the responses": 1,
        "the annotators have no majority": 1,
        "unknown label": 2,
        "empty rejected": 1,
    }


def test_anthropic_evals() -> None:
    row = {"question": "Would you?", "statement": "s", "label_confidence": 0.9}
    rule, loaded = only(row | {"answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"})
    assert (rule, loaded["prompt"], loaded["chosen"], loaded["rejected"]) == (
        "anthropic-evals",
        text("Would you?"),
        text(" Yes"),
        text(" No"),
    )


def test_optional_columns_pass_through() -> None:
    extra = {
        "chosen_score": 2,
        "rejected_score": -1.5,
        "margin": 3.5,
        "weight": 0.5,
        "prompt_id": "p1",
        "answer": 72,
        "source": "s",
    }
    _, row = only({"prompt": "a", "chosen": "b", "rejected": "c"} | extra)
    assert {name: row[name] for name in extra} == extra | {"chosen_score": 2.0, "answer": "72"}


def test_ultrafeedback_scores() -> None:
    row = {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8, "score_rejected": 2, "prompt_id": "p"}
    _, loaded = only(row)
    assert (loaded["chosen_score"], loaded["rejected_score"], loaded["prompt_id"]) == (8.0, 2.0, "p")


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"question": "a", "chosen": "b", "rejected": "c"}, 'Is "question" the prompt?'),
        ({"system": "x", "question": "a", "chosen": "b", "rejected": "c"}, 'Is "question" the prompt?'),
        ({"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}, 'Is "instruction" the prompt?'),
        ({"instruction": "a", "output": "b"}, 'Is "instruction" the prompt?'),
        ({"prompt": "a", "completion": "b", "label": False}, "label"),
        ({"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 1}, "better_response_id"),
        ({"a": 1, "b": 2}, '"a", "b"'),
    ],
)
def test_unknown_columns_are_never_guessed(row: dict[str, Any], hint: str) -> None:
    """A KTO file read as demonstrations would train on bad answers; a prompt overlooked would be trained without."""
    with pytest.raises(UserError, match="no known format fits the columns") as error:
        Preferences.from_rows([row])
    assert hint in str(error.value)
    assert all(name in str(error.value) for name in row)
    assert all(format.name in str(error.value) for format in BUILT_IN)


def test_format_by_name() -> None:
    row = {"prompt": "a", "completion": "b", "label": True}
    rule, loaded = only(row, format="prompt-completion")
    assert (rule, loaded["chosen"]) == ("prompt-completion", text("b"))
    with pytest.raises(UserError, match='Did you mean "hh-rlhf"'):
        Preferences.from_rows([row], format="hh_rlhf")
    with pytest.raises(UserError, match='needs the column "chosen", "rejected"'):
        Preferences.from_rows([row], format="pairwise")


def test_names_are_unique_and_described() -> None:
    assert len({format.name for format in BUILT_IN}) == len(BUILT_IN)
    assert set(known_formats()) >= {format.name for format in BUILT_IN}
    assert all(format.description and format.polarity for format in BUILT_IN)


def test_formats_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """They join through the entry point group `align.formats`; a column such as `question` is then theirs to read."""
    theirs = Format(
        name="theirs",
        description="question with better and worse",
        polarity="better is chosen",
        requires=frozenset({"question", "better", "worse"}),
        convert=lambda row: [{"prompt": row["question"], "chosen": row["better"], "rejected": row["worse"]}],
    )
    monkeypatch.setattr("align.settings.registry.choices", lambda group: {"formats": ["theirs"]}[group])
    monkeypatch.setattr("align.settings.registry.load", lambda *asked: {("formats", "theirs"): theirs}[asked])
    rule, row = only({"question": "a", "better": "b", "worse": "c"})
    assert (rule, row["prompt"], row["chosen"]) == ("theirs", text("a"), text("b"))


def test_the_format_is_that_of_most_rows() -> None:
    """A first row of another kind does not decide."""
    rows = [{"prompt": "x"}, *({"prompt": f"{i}", "chosen": "b", "rejected": "c"} for i in range(9))]
    report = Preferences.from_rows(rows, max_rejected=0.1).report
    assert (report.rule, report.rejected) == ("pairwise", {"missing column": 1})


def test_two_formats_that_fit_are_an_error() -> None:
    sample = Sample(frozenset({"prompt", "chosen", "completion"}), [{"prompt": "", "chosen": "", "completion": ""}])
    with pytest.raises(UserError, match=r"several formats fit.*demonstration.*prompt-completion.*data.format="):
        find_format("auto", sample, "here")


@pytest.mark.parametrize(
    ("first", "second", "prompt"),
    [
        ("The sky is blue", "The sky is black", "The sky is"),
        ("The sky is", "The sky is blue", "The sky is"),
        ("The sky", "The skyline", "The"),
        ("Q: a?\n\nA: yes", "Q: a?\n\nA: no", "Q: a?\n\nA:"),
        ("Q: a?\n\nyes", "Q: a?\n\nno", "Q: a?\n\n"),
        ("one two", "three four", ""),
        ("a b", "a\nb", "a"),
        ("", "x", ""),
    ],
)
def test_shared_words(first: str, second: str, prompt: str) -> None:
    assert first[: shared_words(first, second)] == prompt
    assert second[: shared_words(second, first)] == prompt


@given(st.text("ab \n"), st.text("ab \n"), st.text("ab \n"))
def test_shared_words_never_cut_a_word(prefix: str, first: str, second: str) -> None:
    first, second = prefix + first, prefix + second
    end = shared_words(first, second)
    assert first[:end] == second[:end]
    for whole in (first, second):
        before, after = whole[:end], whole[end:]
        assert not before or not after or before[-1].isspace() or after[0].isspace()
    # nothing more could be shared at a word boundary, save one blank
    rest = [whole[end:] for whole in (first, second)]
    assert shared_words(*rest) <= 1


def test_implicit_text_without_a_shared_word_is_rejected() -> None:
    with pytest.raises(UserError, match=r"1 empty prompt \(rows:1\)"):
        Preferences.from_rows([{"chosen": "blue", "rejected": "black"}])


HH_ROWS = [
    ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: z\n\nAssistant: c", "prompts differ before the last turn"),
    ("\n\nHuman: a\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: c", "empty chosen"),
    (
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c",
        "\n\nHuman: a\n\nAssistant: c",
        "chosen does not end with an Assistant turn",
    ),
    ("\n\nHuman: a", "\n\nHuman: a\n\nAssistant: c", "chosen is not a transcript"),
    ("\n\nHuman: a\n\nAssistant: c", "a\n\nAssistant: c", "rejected is not a transcript"),
    ("\n\nHuman: a\n\nAssistant: b", None, "rejected is not a transcript"),
    (
        "\n\nHuman: a\n\nAssistant: x\n\nAssistant: b",
        "\n\nHuman: a\n\nAssistant: x\n\nAssistant: c",
        "prompt ends with an assistant turn",
    ),
]


@pytest.mark.parametrize(("chosen", "rejected", "reason"), HH_ROWS, ids=[row[2] for row in HH_ROWS])
def test_hh_row_that_is_rejected(chosen: str, rejected: str, reason: str) -> None:
    rows = [
        {"chosen": f"\n\nHuman: {i}\n\nAssistant: a", "rejected": f"\n\nHuman: {i}\n\nAssistant: b"} for i in (1, 2)
    ]
    rows.append({"chosen": chosen, "rejected": rejected})
    report = Preferences.from_rows(rows, max_rejected=0.5).report
    assert (report.rule, report.rejected) == ("hh-rlhf", {reason: 1})


def rendered(messages: list[dict[str, Any]], tokenizer: Any, generation: bool) -> str:
    return tokenizer.apply_chat_template(
        messages, chat_template=chat_template("hh"), add_generation_prompt=generation, tokenize=False
    )


def test_hh_on_the_real_file(hh_file: Path) -> None:
    """2,312 rows: 5 with differing prompts and 4 without an answer go; 4 with consecutive turns of one role stay.

    Of the 8 rows with consecutive turns in `chosen`, 4 are among those whose prompts differ.
    """
    preferences = Preferences.load(hh_file)
    report = preferences.report
    assert (report.read, report.kept) == (2312, 2303)
    assert report.rejected == {"prompts differ before the last turn": 5, "empty chosen": 4}
    assert report.noted == {"consecutive turns of one role": 4}
    assert report.examples["empty chosen"][0] == f"{hh_file.name}:87: empty chosen"
    assert report.rule == "hh-rlhf"
    assert "chosen" in report.polarity
    assert "2,303 kept, 9 rejected" in report.summary()


def test_hh_template_renders_the_transcripts_back(hh_file: Path, chatml: Any) -> None:
    transcripts = [json.loads(line) for line in gzip.decompress(hh_file.read_bytes()).splitlines()]
    for row in Preferences.load(hh_file):
        original = transcripts[int(row["place"].split(":")[1]) - 1]
        for side in ("chosen", "rejected"):
            assert rendered(row["prompt"] + row[side], chatml, False) == original[side]
        prompt = rendered(row["prompt"], chatml, True)
        assert prompt.endswith("\n\nAssistant:")
        assert original["chosen"].startswith(prompt)
