"""Formats: how they are recognised, and what each makes of its rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences
from align.data.formats import BUILT_IN, Format, Sample, find_format, known_formats
from align.data.rendering import chat_template
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
            {"chosen": "Question: Why? Answer: It is blue", "rejected": "Question: Why? Answer: It is black"},
            "trl-implicit",
            (text("Question: Why? Answer:"), text(" It is blue"), text(" It is black")),
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
    assert report.rejected == {"unknown label": 2, "empty rejected": 1}
    assert report.left_out == {"tie between the responses": 1, "the annotators have no majority": 1}


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
        ({"problem": "a", "good": "b", "bad": "c"}, "{prompt: problem, chosen: good, rejected: bad}"),
        ({"problem": "a", "solution": "b"}, "{prompt: problem, chosen: solution}"),
        (
            {"prompt": "a", "answer_a": "b", "answer_b": "c", "preferred": "a"},
            "{response_1: answer_a, response_2: answer_b, better: preferred}",
        ),
        ({"a": 1, "b": 2}, "{prompt: COLUMN, chosen: COLUMN}"),
    ],
)
def test_unknown_columns_are_never_guessed(row: dict[str, Any], hint: str) -> None:
    """A KTO file read as demonstrations would train on bad answers; a prompt overlooked would be trained without."""
    with pytest.raises(UserError, match="no known format fits the columns") as error:
        Preferences.from_rows([row])
    assert f"data.columns='{hint}'" in str(error.value)
    assert all(f"{name} (" in str(error.value) for name in row)
    assert str(error.value).count("\n") < 3


def test_format_by_name() -> None:
    row = {"prompt": "a", "completion": "b", "label": True}
    rule, loaded = only(row, format="prompt-completion")
    assert (rule, loaded["chosen"]) == ("prompt-completion", text("b"))
    with pytest.raises(UserError, match='Did you mean "hh-rlhf"'):
        Preferences.from_rows([row], format="hh_rlhf")
    with pytest.raises(UserError, match="needs the column chosen, rejected"):
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
    with pytest.raises(
        UserError, match=r"(?s)several formats fit.*data.format=demonstration.*demonstration or prompt-completion"
    ):
        find_format("auto", sample, "here")


TRANSCRIPTS = [
    "请问城市的首都在哪里?请简短回答。助手:",
    "用户:\n请问首都在哪里?\n助手:",
    "问:首都在哪里\uff1f答\uff1a",
    "ユーザー: こんにちは\nアシスタント:",
    "사용자: 안녕\n어시스턴트:",
    "ผู้ใช้: สวัสดี\nผู้ช่วย:",
    "Пользователь: Привет\nАссистент:",
    "المستخدم: مرحبا\nالمساعد:",
    "Human: Hi\n\nAssistant:",
    "user: hi\nassistant:",
    "### Instruction:\nAdd 1 and 1.\n\n### Response:\n",
    "### Instruction\nAdd 1 and 1.\n\n### Response\n",
    "Below is a task.\n\n### Input: 1\n\n### Output:\n",
    "Q: 1 + 1?\nA:",
    "Question: what is 1 plus 1? Answer:",
    "**User:** hi\n**Assistant:**",
    "Human: a\nAI: b\nHuman: c\nAI:",
    "[INST] hi [/INST]",
    "<|user|>\nhi\n<|assistant|>\n",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
    "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
]
ANSWERS = [
    ("blue", "black"),
    ("The sky is blue", "The sky is black"),
    ("As an AI: yes.\nAnswer: 5", "As an AI: yes.\nAnswer: 6"),
    ("首都是北京", "首都是南京"),
    ("Here is a list:\n- a\n- b", "Here is a list:\n- a\n- c"),
]


@pytest.mark.parametrize("answers", ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("prompt", TRANSCRIPTS, ids=range(len(TRANSCRIPTS)))
def test_transcripts_are_cut_at_the_turn(prompt: str, answers: tuple[str, str]) -> None:
    """The speaker's mark stays with the prompt, and words that both answers share stay with the answers."""
    if "AI:" in prompt and "AI:" in answers[0]:
        pytest.skip("a second mark of the same speaker")
    chosen, rejected = answers
    rule, row = only({"chosen": prompt + chosen, "rejected": prompt + rejected})
    assert rule == "trl-implicit"
    assert (row["prompt"], row["chosen"], row["rejected"]) == (text(prompt), text(chosen), text(rejected))


def transcript(answer: str) -> str:
    return f"Human: Hi\nAssistant: {answer}"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (transcript("Yes"), transcript("Yes, and more"), "one answer continues the other"),
        (transcript("Yes"), transcript("Yes"), "identical pair"),
        (transcript("a\nHuman: b\nAssistant: c"), transcript("d\nHuman: b\nAssistant: e"), "prompts differ"),
        (transcript("a\nHuman: b"), transcript("d"), "prompts differ before the last turn"),
        ("Human: a\nAssistant: c", "Human: b\nAssistant: c", "prompts differ before the last turn"),
        ("The sky is blue", "The sky is black", "no turn of an assistant is marked"),
        (transcript(""), transcript("x"), "one answer continues the other"),
    ],
)
def test_transcripts_that_cannot_be_cut(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"1 {reason}"):
        Preferences.from_rows([{"chosen": chosen, "rejected": rejected}], format="trl-implicit")


PLAIN = [
    ("The sky is blue.", "The sky is black."),
    ("As an AI, I think it is 5.\nAnswer: 5", "As an AI, I think it is 5.\nAnswer: 6"),
    ("Answer: 5", "Answer: 6"),
    ("Sure! Here is a list:\n\n1. a", "Sure! Here is a list:\n\n1. b"),
    ("the answer: five", "the answer: six"),
    ("首都是北京\u3002", "首都是南京\u3002"),
]


@pytest.mark.parametrize("name", ["problem", "question", "instruction", "frage", "task_text", "x"])
@pytest.mark.parametrize("answers", PLAIN, ids=range(len(PLAIN)))
@pytest.mark.parametrize("messages", [False, True])
def test_answers_never_become_the_prompt(name: str, answers: tuple[str, str], messages: bool) -> None:
    """The words that plain answers share are no prompt; the column that holds it is named, and read when mapped."""
    sides: list[Any] = list(answers)
    if messages:
        sides = [[{"role": "assistant", "content": answer}] for answer in answers]
    rows = [{name: f"What is number {i}?", "chosen": sides[0], "rejected": sides[1], "id": f"{i}"} for i in range(9)]
    columns = None
    if name not in ("question", "instruction"):  # published formats have these
        columns = {"prompt": name, "chosen": None}
        with pytest.raises(UserError, match=f"data.columns='{{prompt: {name}}}'"):
            Preferences.from_rows(rows, max_rejected=1)
    row = Preferences.from_rows(rows, columns=columns)[3]
    assert [row[side][0]["content"] for side in ("prompt", "chosen", "rejected")] == ["What is number 3?", *answers]


def test_columns_under_other_names() -> None:
    row = {"q": "a", "good": "b", "bad": "c", "gold": "d"}
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad", "answer": "gold"}
    rule, loaded = only(row, columns=columns)
    assert (rule, loaded["prompt"], loaded["chosen"], loaded["answer"]) == ("pairwise", text("a"), text("b"), "d")
    with pytest.raises(UserError, match=r"data.columns.prompt=qq, but no row has the column 'qq'; there are bad, gold"):
        only(row, columns={"prompt": "qq"})
    with pytest.raises(UserError, match="there is a column 'chosen' as well"):
        only(row | {"chosen": "x"}, columns={"chosen": "good"})
    _, loaded = only(
        {"prompt": "a", "chosen": "b", "rejected": "c"}, columns={"chosen": "rejected", "rejected": "chosen"}
    )
    assert (loaded["chosen"], loaded["rejected"]) == (text("c"), text("b"))


def test_answers_alone_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.columns='\{prompt: COLUMN\}'"):
        Preferences.from_rows([{"chosen": "The sky is blue", "rejected": "The sky is black"}], max_rejected=1)


def test_instructions() -> None:
    """The published columns; the verifier reads the instructions from the answer."""
    instructions = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    rule, row = only({"key": 1000, "prompt": "Write."} | instructions)
    assert (rule, row["prompt"], json.loads(row["answer"])) == ("instructions", text("Write."), instructions)
    report = Preferences.from_rows(
        [{"key": 1, "prompt": "Write."} | instructions, {"key": 2, "prompt": "W."} | instructions | {"kwargs": []}],
        max_rejected=0.5,
    ).report
    assert report.rejected == {"instruction_id_list and kwargs are not of one length, at least 1": 1}


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


@pytest.mark.parametrize("answer", ["  two blanks", "trailing \n", "\nnext line", "\n\n  both \n\n"])
def test_blanks_of_an_hh_answer_stay(answer: str) -> None:
    """Only the space behind the colon belongs to the transcript."""
    _, row = only({"chosen": f"\n\nHuman: a\n\nAssistant: {answer}", "rejected": "\n\nHuman: a\n\nAssistant: b"})
    assert row["chosen"] == [{"role": "assistant", "content": answer}]


def test_texts_with_a_score_for_each_side() -> None:
    """UltraFeedback's names of the scores, beside a prompt and plain answers."""
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 5.0, "score_rejected": 1.0}
    (read,) = Preferences.from_rows([row])
    assert (read["prompt"][0]["content"], read["chosen"][0]["content"]) == ("q", "a")
    assert (read["chosen_score"], read["rejected_score"]) == (5.0, 1.0)
