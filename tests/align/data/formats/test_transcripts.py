"""Transcripts: where they are cut, and HH-RLHF's on the real file and back through its template."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences
from align.data.rendering import chat_template
from align.errors import UserError


def text(content: str) -> list[dict[str, str | None]]:
    return [{"role": None, "content": content}]


def only(row: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    """Load one row; return the rule that matched and the row without what is null."""
    preferences = Preferences.from_rows([row], **options)
    return preferences.report.rule, {name: value for name, value in preferences[0].items() if value is not None}


TRANSCRIPTS = [
    "请问城市的首都在哪里?请简短回答。助手:",
    "用户:\n请问首都在哪里?\n助手:",
    "问:首都在哪里\uff1f答\uff1a",
    "ユーザー: こんにちは\nアシスタント:",
    "사용자: 안녕\n어시스턴트:",
    "ผู้ใช้: สวัสดี\nผู้ช่วย:",
    "Пользователь: Привет\nАссистент:",
    "المستخدم: مرحبا\nالمساعد:",
    "Human: Hi\nAssistant:",
    "user: hi\nassistant:",
    "### Instruction:\nAdd 1 and 1.\n\n### Response:\n",
    "### Instruction\nAdd 1 and 1.\n\n### Response\n",
    "Below is a task.\n\n### Input: 1\n\n### Output:\n",
    "Q: 1 + 1?\nA:",
    "Question: what is 1 plus 1? Answer:",
    "**User:** hi\n**Assistant:**",
    "Human: a\nAI: b\nHuman: c\nAI:",
    "Question: 1 + 1?\nAnswer: 2\nQuestion: what comes next? Output: 3\nAnswer:",  # marked as the first answer is
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
        (transcript("d"), transcript("a\nHuman: b"), "prompts differ before the last turn"),
        ("Human: a\nAssistant: c", "Human: b\nAssistant: c", "prompts differ before the last turn"),
        ("The sky is blue", "The sky is black", "no turn of an assistant is marked"),
        (transcript(""), transcript("x"), "one answer continues the other"),
    ],
)
def test_transcripts_that_cannot_be_cut(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"1 {reason}"):
        Preferences.from_rows([{"chosen": chosen, "rejected": rejected}], format="trl-implicit")


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
    assert report.noted == {"consecutive turns of one role": 4, "one of the answers begins with the prompt": 1}
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


@pytest.mark.parametrize(
    ("prompt", "is_one"),
    [
        ("User: hi\nBot: hello\nUser: and now?", True),
        ("USER: hi ASSISTANT: hello</s>USER: and now? ASSISTANT:", True),
        ("Human: hi\nAI: hello\nHuman: and now?\nAI:", True),
        ("### Human: hi\n### Assistant:", True),
        ("<s>[INST] hi [/INST]", True),
        ("[INST] hi [/INST] hello", True),
        ("[INST] hi", False),
        ("Question: What is 2 + 2?\nAnswer:", False),
        ("Question: a\nAnswer: b\n\nQuestion: c\nAnswer:", True),
        ("Write a dialogue in which User: hi is followed by Bot: hello", False),
        ("What is the task of a user?", False),
        ("Task: sum up\nInput: a text", False),
    ],
)
def test_a_prompt_that_is_a_transcript_stays_one_text_and_is_reported(prompt: str, is_one: bool) -> None:
    """Question and Answer in turn are as many turns; one question with the place of its answer is a plain prompt."""
    data = Preferences.from_rows([{"prompt": prompt, "chosen": "a", "rejected": "b"}])
    assert data[0]["prompt"] == [{"role": None, "content": prompt}]
    remark = "the prompt is a transcript with marks of its own and stays one text; give messages to have turns"
    assert data.report.noted == ({remark: 1} if is_one else {})


WHOLE = "Human: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: "
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
]


@pytest.mark.parametrize("breaks", ["\n\n", ""])
@pytest.mark.parametrize(
    "prompt",
    ["Why?", "Hi", "Human: Hi\n\nAssistant: Hello.\n\nHuman: Why?", "\n\n" + WHOLE, TURNS, TURNS[-1:]],
    ids=["last question", "first question", "without the last mark", "with it", "turns", "last turn"],
)
def test_answers_that_are_whole_transcripts_beside_their_prompt(prompt: Any, breaks: str) -> None:
    rule, row = only({"prompt": prompt, "chosen": f"{breaks}{WHOLE}Good.", "rejected": f"{breaks}{WHOLE}Bad."})
    assert rule == "pairwise"
    assert [row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"]] == [TURNS, "Good.", "Bad."]


def test_the_system_turn_of_a_prompt_stays_before_the_transcript() -> None:
    system = {"role": "system", "content": "Be brief."}
    row = {"prompt": [system, *TURNS], "chosen": WHOLE + "Good.", "rejected": WHOLE + "Bad."}
    assert only(row)[1]["prompt"] == [system, *TURNS]


def test_other_transcripts_beside_their_prompt() -> None:
    before = "User: Why?\nAssistant:"
    _, row = only({"prompt": "Why?", "chosen": f"{before} Good.", "rejected": f"{before} Bad."})
    assert (row["prompt"], row["chosen"], row["rejected"]) == (text(before), text(" Good."), text(" Bad."))


def test_a_dialogue_that_answers_a_prompt_is_an_answer() -> None:
    chosen, rejected = "User: Hi\nBot: Hello.", "User: Hey\nBot: What?"
    _, row = only({"prompt": "Write a dialogue.", "chosen": chosen, "rejected": rejected})
    assert (row["chosen"], row["rejected"]) == (text(chosen), text(rejected))


@pytest.mark.parametrize(
    ("prompt", "rejected", "reason"),
    [
        ("How?", WHOLE + "Bad.", "the transcripts do not begin with the prompt"),
        (TURNS[:1], WHOLE + "Bad.", "the transcripts do not begin with the prompt"),
        ("Why?", "Human: Why?\n\nAssistant: Bad.", "prompts differ before the last turn"),
    ],
)
def test_whole_transcripts_that_do_not_agree(prompt: Any, rejected: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        only({"prompt": prompt, "chosen": WHOLE + "Good.", "rejected": rejected})
