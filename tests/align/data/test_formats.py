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


SHARED = {
    *("chosen_score", "rejected_score", "margin", "weight", "prompt_id", "answer", "source"),
    *("chosen_drawn", "rejected_drawn", "drawn_with"),
}
LAYOUTS: dict[str, tuple[set[str], set[str]]] = {
    "pairwise": ({"prompt", "chosen", "rejected"}, SHARED),
    "hh-rlhf": ({"chosen", "rejected"}, SHARED),
    "trl-implicit": ({"chosen", "rejected"}, SHARED),
    "ultrafeedback": (
        {"chosen", "rejected", "score_chosen", "score_rejected"},
        {"prompt", "prompt_id", "messages"},
    ),
    "pandalm": (
        {"instruction", "response1", "response2", "annotator1", "annotator2", "annotator3"},
        SHARED | {"input"},
    ),
    "anthropic-evals": ({"question", "answer_matching_behavior", "answer_not_matching_behavior"}, SHARED),
    "demonstration": ({"prompt", "chosen"}, SHARED),
    "prompt-completion": ({"prompt", "completion"}, SHARED),
    "messages": ({"messages"}, SHARED),
    "gsm8k": ({"question", "answer"}, SHARED),
    "instructions": ({"prompt", "instruction_id_list", "kwargs"}, SHARED | {"key"}),
    "prompt": ({"prompt"}, SHARED),
}
TURNS = "\n\nHuman: q\n\nAssistant: "
ROWS: dict[str, dict[str, Any]] = {
    "pairwise": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "hh-rlhf": {"chosen": f"{TURNS}a", "rejected": f"{TURNS}b"},
    "trl-implicit": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "ultrafeedback": {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 2, "score_rejected": 1},
    "pandalm": panda(1, 1, 1),
    "anthropic-evals": {"question": "q", "answer_matching_behavior": "a", "answer_not_matching_behavior": "b"},
    "demonstration": {"prompt": "q", "chosen": "a"},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "messages": {"messages": [USER, GOOD]},
    "gsm8k": {"question": "q", "answer": "It is 1.\n#### 1"},
    "instructions": {"prompt": "q", "instruction_id_list": ["a"], "kwargs": [{}]},
    "prompt": {"prompt": "q"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_of_each_format(name: str) -> None:
    found = {format.name: format for format in BUILT_IN}
    assert set(found) == set(LAYOUTS)
    assert (found[name].requires, found[name].optional) == LAYOUTS[name]
    assert found[name].columns == LAYOUTS[name][0] | LAYOUTS[name][1]


@pytest.mark.parametrize("name", ROWS)
def test_shared_columns_of_each_format_reach_the_row(name: str) -> None:
    values: dict[str, Any] = {"margin": 1.5, "weight": 0.5, "prompt_id": "p", "answer": "x", "source": "s"}
    values |= {"chosen_score": 4.0, "rejected_score": 3.0, "chosen_drawn": [1], "rejected_drawn": [2]}
    values |= {"drawn_with": "w"}
    own = {"gsm8k": {"answer": "1"}, "instructions": {"answer": '{"instruction_id_list": ["a"], "kwargs": [{}]}'}}
    read = {
        column: value for column, value in values.items() if column in LAYOUTS[name][1] and column not in ROWS[name]
    }
    rule, row = only(ROWS[name] | read)
    assert rule == name
    assert {column: row[column] for column in read} == read | {
        column: value for column, value in own.get(name, {}).items() if column in read
    }
    if name == "ultrafeedback":
        assert (row["chosen_score"], row["rejected_score"]) == (2.0, 1.0)


OTHERS = """
    annotations annotator better_response_id choice chosen_conversations chosen_response comparison completion_A
    completion_B completions context conversation_a conversation_b conversations history human_ref_A human_ref_B input
    instruction label labels output output_1 output_2 output_A output_B overall_preference preference query question
    rank rejected_conversations rejected_response response response1 response2 response_0 response_1 responses score_A
    score_B score_chosen score_rejected scores summaries system winner
"""


@pytest.mark.parametrize("name", ROWS)
def test_beside_a_column_that_may_hold_something_else_nothing_is_guessed(name: str) -> None:
    """But the format can be named."""
    fits = find_format("auto", Sample(frozenset(ROWS[name]), [ROWS[name]]), "here").fits
    for column in OTHERS.split():
        row = {column: "x"} | ROWS[name]
        sample = Sample(frozenset(row), [row])
        assert fits(sample) == (column in LAYOUTS[name][0] | LAYOUTS[name][1]), column
        assert find_format(name, sample, "here").name == name


HH_PAIR, PLAIN_PAIR = ROWS["hh-rlhf"], {"chosen": "Blue.", "rejected": "Black."}
GSM, LETTER = ROWS["gsm8k"], {"question": "q", "answer": "b"}


@pytest.mark.parametrize(
    ("most", "others", "name"),
    [(HH_PAIR, PLAIN_PAIR, "hh-rlhf"), (ROWS["trl-implicit"], PLAIN_PAIR, "trl-implicit"), (GSM, LETTER, "gsm8k")],
)
def test_a_format_that_looks_at_the_rows_needs_more_than_half_of_them(most: Any, others: Any, name: str) -> None:
    format = known_formats()[name]
    columns = frozenset(most)
    assert format.fits(Sample(columns, [others, others, most, most, most]))
    assert not format.fits(Sample(columns, [others, others, most, most]))
    assert not format.fits(Sample(columns, [others, most, others]))


def test_conversations_of_one_turn_hold_no_prompt() -> None:
    sample = Sample(frozenset({"chosen", "rejected"}), [{"chosen": [GOOD], "rejected": [BAD]}])
    assert not known_formats()["trl-implicit"].fits(sample)
    for column in ("prompt", "messages"):
        longer = {**ROWS["trl-implicit"], column: "x"}
        assert not known_formats()["trl-implicit"].fits(Sample(frozenset(longer), [longer]))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "messages do not end with an assistant turn"),
        ({"messages": [GOOD, USER]}, "messages do not end with an assistant turn"),
        ({"messages": ["x"]}, "messages do not end with an assistant turn"),
        ({"messages": "x"}, "messages is not a list of messages"),
        ({"messages": [GOOD]}, "empty prompt"),
        ({"messages": [USER, GOOD, USER, BAD]}, None),
    ],
)
def test_conversations_end_with_what_is_learned(row: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        _, loaded = only(row, format="messages")
        assert (loaded["prompt"], loaded["chosen"]) == ([USER, GOOD, USER], [BAD])
    else:
        with pytest.raises(UserError, match=f": 1 {reason}"):
            only(row, format="messages")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([USER, GOOD], "text", "chosen and rejected are not both text or both messages"),
        ("text", [USER, GOOD], "chosen and rejected are not both text or both messages"),
        ([], [USER, GOOD], "chosen has no message"),
        ([USER, GOOD], [], "rejected has no message"),
        ([USER, GOOD], [SYSTEM, USER, BAD], "prompts differ before the last turn"),
        ([USER, GOOD], [USER, GOOD], "identical pair"),
        ([GOOD], [BAD], "empty prompt"),
    ],
)
def test_conversations_that_cannot_be_cut(chosen: Any, rejected: Any, reason: str) -> None:
    for name, scores in (("trl-implicit", {}), ("ultrafeedback", {"score_chosen": 2, "score_rejected": 1})):
        with pytest.raises(UserError, match=f": 1 {reason}"):
            only({"chosen": chosen, "rejected": rejected} | scores, format=name)


@pytest.mark.parametrize(
    ("votes", "better"),
    [
        *(((1, 1, 1), "one"), ((1, 2, 1), "one"), ((2, 1, 1), "one"), ((1, 1, 0), "one")),
        *(((2, 2, 2), "two"), ((0, 2, 2), "two"), ((1, 2, 2), "two")),
        *(((0, 0, 1), None), ((0, 0, 0), None), ((0, 1, 2), None), ((2, 1, 0), None)),
    ],
)
def test_two_annotators_of_three_decide(votes: tuple[int, ...], better: str | None) -> None:
    if better is None:
        with pytest.raises(UserError, match=r"tie between the responses|no majority"):
            only(panda(*votes))
        return
    _, row = only(panda(*votes))
    assert (row["chosen"], row["rejected"]) == (text(better), text({"one": "two", "two": "one"}[better]))


@pytest.mark.parametrize(
    ("row", "ids", "arguments", "fits"),
    [
        ({}, ["a"], [{}], True),
        ({}, ["a", "b"], [{}, {"n": 1}], True),
        ({}, [], [], False),
        ({}, ["a"], [{}, {}], False),
        ({}, "a", [{}], False),
        ({}, ["a"], {}, False),
    ],
)
def test_every_instruction_has_its_arguments(row: Any, ids: Any, arguments: Any, fits: bool) -> None:
    bad = {"prompt": "q", "instruction_id_list": ids, "kwargs": arguments} | row
    loaded = Preferences.from_rows([ROWS["instructions"], bad], max_rejected=0.5)
    assert (len(loaded) == 2) == fits
    if fits:
        assert json.loads(loaded[1]["answer"]) == {"instruction_id_list": ids, "kwargs": arguments}


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        # The longest column of most rows, unless a name says it; an empty or numeric one is none.
        ([{"a": "x", "b": "xx", "chosen": "c", "rejected": "d"}], 'Is "b" the prompt?'),
        ([{"a": "xxx", "query": "x", "chosen": "c", "rejected": "d"}], 'Is "query" the prompt?'),
        ([{"a": "xxx", "query": "", "chosen": "c", "rejected": "d"}], 'Is "a" the prompt?'),
        ([{"a": 7, "b": "x", "chosen": "c", "rejected": "d"}], 'Is "b" the prompt?'),
        ([{"a": "xxxxx", "b": "x"}, {"a": 3, "b": "y"}, {"a": 4, "b": "z"}], 'Is "b" the prompt?'),
        ([{"a": "xxxxx", "b": "x"}, {"a": "", "b": "y"}], 'Is "b" the prompt?'),
        ([{"question": "x", "instruction": "xx", "chosen": "c"}], 'Is "question" the prompt?'),
        ([{"source": "xxxxx", "output": "xxxx", "b": "x"}], 'Is "b" the prompt?'),
    ],
)
def test_the_column_that_may_be_the_prompt(rows: list[dict[str, Any]], hint: str) -> None:
    with pytest.raises(UserError) as error:
        find_format("auto", Sample(frozenset(rows[0]), rows), "here")
    assert hint in str(error.value)
    assert str(error.value).count("the prompt?") == 1


@pytest.mark.parametrize(
    "row", [{"a": 7, "b": None}, {"prompt": "x", "label": 1, "a": "xxxx"}, {"messages": 1, "label": "xx"}]
)
def test_where_no_column_looks_like_a_prompt_none_is_named(row: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        find_format("auto", Sample(frozenset(row), [row]), "here")
    assert "the prompt?" not in str(error.value)


def test_of_several_formats_that_fit_the_one_that_asks_for_most_is_taken() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0}]
    assert find_format("auto", Sample(frozenset(rows[0]), rows), "here").name == "ultrafeedback"
    both = {"prompt": "q", "chosen": "a", "completion": "b", "rejected": "c"}
    assert find_format("auto", Sample(frozenset(both), [both]), "here").name == "pairwise"


@pytest.mark.parametrize(
    ("before", "cut"),
    [
        # The last mark that both share and that follows the last question.
        ("Human: a\nAssistant: b\nHuman: c\nAssistant:", True),
        ("Human: a\nAssistant: b\nHuman: c\n", False),
        ("Question: a\nAnswer:", True),
        ("Answer:", False),
        ("Assistant:", False),
        ("Be kind.\nAssistant:", True),
        ("[INST] a [/INST]", True),
        ("Human: an assistant: that", False),
        ("<|user|>a<|assistant|>", True),
    ],
)
def test_where_an_answer_may_begin(before: str, cut: bool) -> None:
    rows = [{"chosen": f"{before} blue", "rejected": f"{before} red"}]
    if cut:
        _, row = only(rows[0])
        assert (row["prompt"], row["chosen"], row["rejected"]) == (text(before), text(" blue"), text(" red"))
    else:
        with pytest.raises(UserError, match=r"1 (no turn of an assistant is marked|prompts differ)"):
            Preferences.from_rows(rows, format="trl-implicit")


@pytest.mark.parametrize(
    ("role", "shown"),
    [("system", "x"), ("developer", "x"), ("user", "\n\nHuman: x"), ("assistant", "\n\nAssistant: x")],
)
def test_roles_of_the_hh_template(role: str, shown: str, chatml: Any, bos_adding: Any) -> None:
    turns = [{"role": role, "content": "x"}]
    assert rendered(turns, chatml, False) == shown
    assert rendered(turns, bos_adding, True) == f"<s>{shown}\n\nAssistant:"


def test_the_chatml_template(chatml: Any, bos_adding: Any) -> None:
    template = chat_template("chatml")
    for tokenizer, start in ((chatml, ""), (bos_adding, "<s>")):
        whole = tokenizer.apply_chat_template([SYSTEM, USER, GOOD], chat_template=template, tokenize=False)
        assert whole == (
            f"{start}<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello there<|im_end|>\n"
            "<|im_start|>assistant\nHello yourself<|im_end|>\n"
        )
        asked = tokenizer.apply_chat_template(
            [USER], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert asked == f"{start}<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n"


def test_a_role_that_the_hh_template_does_not_know(chatml: Any) -> None:
    with pytest.raises(Exception, match="the hh template knows no role tool"):
        rendered([{"role": "tool", "content": "x"}], chatml, False)
