"""Answers that are transcripts with the prompt in them, in every format whose answers are text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.errors import UserError
from tests.align.data.formats.tables import messages, read

ASKED = "Why is the sky blue?"
REPEATS = "the answer repeats the prompt"
GOOD, BAD = "Of Rayleigh scattering.", "Of the sea."

MARKS = {
    "User": f"User: {ASKED}\nAssistant:",
    "Human": f"Human: {ASKED}\nAI:",
    "Alpaca": f"### Instruction:\n{ASKED}\n\n### Response:\n",
    "Alpaca with its preamble": f"Below is an instruction that describes a task.\n\n### Instruction:\n{ASKED}\n\n"
    "### Response:\n",
    "ChatML": f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
    "ChatML with a system": "<|im_start|>system\nBe kind.<|im_end|>\n"
    f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
    "Llama 2": f"<s>[INST] {ASKED} [/INST]",
    "Llama 3": f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "Gemma": f"<bos><start_of_turn>user\n{ASKED}<end_of_turn>\n<start_of_turn>model\n",
    "Zephyr": f"<|user|>\n{ASKED}</s>\n<|assistant|>\n",
    "Vicuna": f"A chat between a curious user and an assistant. USER: {ASKED} ASSISTANT:",
}

Layout = Callable[[str, str], list[dict[str, Any]]]
PAIRS: dict[str, Layout] = {
    "pairwise": lambda a, b: [{"prompt": ASKED, "chosen": a, "rejected": b}],
    "alpaca-pairs": lambda a, b: [{"instruction": ASKED, "chosen": a, "rejected": b}],
    "argilla": lambda a, b: [{"instruction": ASKED, "chosen_response": a, "rejected_response": b}],
    "orca-pairs": lambda a, b: [{"question": ASKED, "chosen": a, "rejected": b}],
    "ultrafeedback": lambda a, b: [
        {"prompt": ASKED, "chosen": a, "rejected": b, "score_chosen": 2, "score_rejected": 1}
    ],
    "stack-exchange-paired": lambda a, b: [{"question": ASKED, "response_j": a, "response_k": b}],
    "labelled": lambda a, b: [{"prompt": ASKED, "response_1": b, "response_2": a, "better": 2}],
    "llmbar": lambda a, b: [{"input": ASKED, "output_1": a, "output_2": b, "label": 1}],
    "helpsteer3": lambda a, b: [{"context": ASKED, "response1": b, "response2": a, "overall_preference": 2}],
    "pku-saferlhf": lambda a, b: [
        {"prompt": ASKED, "response_0": b, "response_1": a, "better_response_id": 1}
    ],
    "scored": lambda a, b: [{"prompt": ASKED, "responses": [a, b], "scores": [1, 0]}],
    "rrhf": lambda a, b: [{"query": ASKED, "responses": [b, a], "scores": [0, 1]}],
    "nectar": lambda a, b: [{"prompt": ASKED, "answers": [{"answer": b, "rank": 2}, {"answer": a, "rank": 1}]}],
    "helpsteer": lambda a, b: [
        {"prompt": ASKED, "response": a, "helpfulness": 4},
        {"prompt": ASKED, "response": b, "helpfulness": 1},
    ],
}  # fmt: skip
SINGLE: dict[str, Layout] = {
    "kto": lambda a, b: [
        {"prompt": ASKED, "completion": a, "label": True},
        {"prompt": ASKED, "completion": b, "label": False},
    ],
    "kto-alpaca": lambda a, b: [
        {"instruction": ASKED, "output": a, "kto_tag": True},
        {"instruction": ASKED, "output": b, "kto_tag": False},
    ],
    "alpaca": lambda a, _: [{"instruction": ASKED, "output": a}],
    "prompt-completion": lambda a, _: [{"prompt": ASKED, "completion": a}],
    "demonstration": lambda a, _: [{"prompt": ASKED, "chosen": a}],
}


@pytest.mark.parametrize("before", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("name", [*PAIRS, *SINGLE])
def test_the_prompt_is_cut_from_the_answers(name: str, before: str) -> None:
    rows = (PAIRS | SINGLE)[name](f"{before} {GOOD}", f"{before} {BAD}")
    made, report = read(rows)
    assert report.rule == name
    for row in made:
        answers = [side.strip() for side in row[1:3] if isinstance(side, str)]
        assert set(answers) <= {GOOD, BAD}, row
        assert row[0].strip() == before.strip()


@pytest.mark.parametrize("name", PAIRS)
def test_transcripts_that_ask_something_else_are_rejected(name: str) -> None:
    for before in MARKS.values():
        other = before.replace(ASKED, "What is the sea made of?")
        with pytest.raises(UserError, match="the transcripts do not begin with the prompt"):
            read(PAIRS[name](f"{other} {GOOD}", f"{other} {BAD}"))


@pytest.mark.parametrize("name", [*PAIRS, *SINGLE])
@pytest.mark.parametrize(
    "quoted",
    [
        'Chats are written as "User: hi" and "Assistant: hello", so:',
        f"You asked this. User: {ASKED} Assistant: that is how it looks.",
        "User: is a mark of chats, and so is Bot: in some. Why?",
        "# Chats\n\nUser: hi\n\nBot: hello\n\nThat is one.",
    ],
)
def test_answers_that_quote_turns_stay_as_they_are(name: str, quoted: str) -> None:
    """Each answer quotes them in its own words."""
    a, b = f"First. {quoted} one", f"Well, {quoted} two"
    made, _ = read((PAIRS | SINGLE)[name](a, b))
    assert {side for row in made for side in row[1:3] if isinstance(side, str)} <= {a, b}
    assert all(row[0] == ASKED for row in made)


def test_the_system_stays_before_the_transcript_unless_it_is_in_it() -> None:
    for name, heard in (("User", False), ("ChatML with a system", True)):
        before = MARKS[name].strip()
        row = {"system": "Be kind.", "question": ASKED, "chosen": f"{before} {GOOD}", "rejected": f"{before} {BAD}"}
        ((prompt, *_),), report = read([row])
        assert report.rule == "orca-pairs"
        assert prompt == (before if heard else [("system", "Be kind."), ("user", before)])


def test_an_instruction_with_input_and_earlier_turns() -> None:
    before = "### Instruction:\nSum up.\n\n### Input:\nA long text.\n\n### Response:\n"
    row = {"instruction": "Sum up.", "input": "A long text.", "chosen": before + GOOD, "rejected": before + BAD}
    assert read([row])[0] == [(before, GOOD, BAD)]
    before = f"User: Hi\nAssistant: Hello.\nUser: {ASKED}\nAssistant:"
    row = {"instruction": ASKED, "history": [["Hi", "Hello."]], "chosen": before + GOOD, "rejected": before + BAD}
    assert read([row])[0] == [(before, GOOD, BAD)]
    with pytest.raises(UserError, match="the transcripts do not begin with the prompt"):
        read([row | {"history": [["Hey", "What?"]]}])


def test_turns_behind_the_prompt() -> None:
    """Of a pair both share them; of a single answer it is not known which turn is the answer."""
    before = f"User: {ASKED}\nAssistant: Guess.\nUser: Tell me.\nAssistant:"
    assert read(PAIRS["alpaca-pairs"](f"{before} {GOOD}", f"{before} {BAD}"))[0] == [
        (before, f" {GOOD}", f" {BAD}"),
    ]
    with pytest.raises(UserError, match="the transcript goes on behind the answer to the prompt"):
        read(SINGLE["alpaca"](f"{before} {GOOD}", ""))


@pytest.mark.parametrize("name", ["alpaca-pairs", "pairwise", "scored"])
def test_transcripts_with_other_turns_before_the_prompt_are_rejected(name: str) -> None:
    sides = (f"User: {one}\nAssistant: Hm.\nUser: {ASKED}\nAssistant: {two}" for one, two in (("a", GOOD), ("b", BAD)))
    with pytest.raises(UserError, match="prompts differ before the last turn"):
        read(PAIRS[name](*sides))


def test_one_answer_may_continue_the_other() -> None:
    """With the prompt in a column its end is known."""
    before = MARKS["User"]
    assert read(PAIRS["orca-pairs"](f"{before} {GOOD}", f"{before} {GOOD} {BAD}"))[0] == [
        (before, f" {GOOD}", f" {GOOD} {BAD}"),
    ]


def test_prompts_of_messages() -> None:
    before = MARKS["User"]
    row = {"prompt": [{"role": "user", "content": ASKED}], "chosen": f"{before} {GOOD}", "rejected": f"{before} {BAD}"}
    assert read([row])[0] == [(before, f" {GOOD}", f" {BAD}")]


@pytest.mark.parametrize("marks", [("User", "Bot"), ("用户", "助手")])
def test_a_dialogue_that_answers_alone_stays_and_is_counted(marks: tuple[str, str]) -> None:
    dialogue = f"{marks[0]}: Hi\n{marks[1]}: Hello."
    made, report = read([{"instruction": "Write a dialogue.", "output": dialogue}])
    assert made == [("Write a dialogue.", dialogue, None)]
    assert report.noted == {"an answer begins as a transcript with marks of its own and stays whole": 1}


@pytest.mark.parametrize("before", MARKS.values(), ids=MARKS)
def test_answers_that_are_messages_lose_the_prompt_too(before: str) -> None:
    """The prompt stays the conversation that it is; what only the transcript has would be lost."""
    row = {"messages": messages(("user", ASKED), ("assistant", f"{before} {GOOD}"))}
    if "Be kind" in before:
        assert_repeats([row])
        row["messages"].insert(0, {"role": "system", "content": "Be kind."})
    if "Below" in before or "A chat" in before:
        assert_repeats([row])
    else:
        ((prompt, chosen, _),), _ = read([row])
        assert (prompt[-1], chosen) == (("user", ASKED), [("assistant", GOOD)])


def test_a_transcript_of_a_part_of_the_prompt_is_cut_and_the_prompt_stays() -> None:
    row = {"prompt": f"{ASKED}\nIt is above.", "completion": f"User: {ASKED}\nAssistant: {GOOD}"}
    assert read([row])[0] == [(row["prompt"], GOOD, None)]
    hh = {"prompt": f"\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: {ASKED}\n\nAssistant:"}
    sides = {
        side: f"\n\nHuman: {ASKED}\n\nAssistant: {answer}" for side, answer in (("chosen", GOOD), ("rejected", BAD))
    }
    assert read([hh | sides])[0] == [
        ([("user", "Hi"), ("assistant", "Hello."), ("user", ASKED)], [("assistant", GOOD)], [("assistant", BAD)])
    ]
    parts = {
        "instruction": ASKED,
        "input": "It is blue.",
        "output": f"### Instruction:\n{ASKED}\n\n### Response:\n{GOOD}",
    }
    assert read([parts])[0] == [(f"{ASKED}\nIt is blue.", GOOD, None)]


def assert_repeats(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=rf"\d {REPEATS} \(rows:"):
        read(rows)


UNKNOWN = {
    "a name": f"Falcon: {ASKED}\nAlice:",
    "tokens": f"<reserved_106>{ASKED}<reserved_107>",
    "brackets": f"[USER] {ASKED} [ASSISTANT]",
    "a heading": f"## Falke\n{ASKED}\n\n## Adler\n",
    "a time": f"[12:00] User: {ASKED}\n[12:01] Assistant:",
    "JSON": f'{{"question": "{ASKED}", "answer":',
    "nothing": f"{ASKED}\n\n",
    "a sentence": f"Here is the question: {ASKED}\nHere is my answer:",
}


@pytest.mark.parametrize("before", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("name", [*PAIRS, *SINGLE])
def test_answers_that_repeat_the_prompt_behind_unknown_marks_are_rejected(name: str, before: str) -> None:
    assert_repeats((PAIRS | SINGLE)[name](f"{before} {GOOD}", f"{before} {BAD}"))


def test_one_side_that_repeats_the_prompt() -> None:
    """With a mark it is a transcript; without one a model may have begun so, which is said."""
    for before in (*MARKS.values(), *(text for name, text in UNKNOWN.items() if name != "nothing")):
        assert_repeats(PAIRS["pairwise"](f"{before} {GOOD}", BAD))
    made, report = read(PAIRS["pairwise"](f"{ASKED} {GOOD}", BAD))
    assert made == [(ASKED, f"{ASKED} {GOOD}", BAD)]
    assert report.noted == {"one of the answers begins with the prompt": 1}


@pytest.mark.parametrize(
    "answer",
    [
        ASKED,
        f"{ASKED}!",
        f'You ask "{ASKED}", and I say so.',
        f"I have corrected what you sent me and found nothing: {ASKED} Nothing else.",
        f"The sea. {ASKED} It is so.",
        f"{'It is a long story that begins with light and ends with light as it does. ' * 2}\nYou: {ASKED} Well.",
    ],
)
def test_answers_that_quote_the_prompt_stay(answer: str) -> None:
    for rows in (SINGLE["alpaca"](answer, ""), PAIRS["pairwise"](answer, BAD)):
        made, report = read(rows)
        assert (made[0][1], report.noted) == (answer, {})
