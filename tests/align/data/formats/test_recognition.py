"""How a format is found: by columns, by the values of most rows, by name, and under names that a user maps."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.data.formats import Format, Sample, find_format, known_formats
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


def test_format_by_name() -> None:
    row = {"prompt": "a", "completion": "b", "label": True}
    rule, loaded = only(row, format="prompt-completion")
    assert (rule, loaded["chosen"]) == ("prompt-completion", text("b"))
    with pytest.raises(UserError, match='Did you mean "hh-rlhf"'):
        Preferences.from_rows([row], format="hh_rlhf")
    with pytest.raises(UserError, match="needs the column chosen, rejected"):
        Preferences.from_rows([row], format="pairwise")


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


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_two_columns_of_one_prompt_are_one_prompt() -> None:
    """As in orpo-dpo-mix: whole conversations beside `prompt` and `question`, which are the same."""
    rows = [
        {"prompt": q, "question": q, "chosen": conversation(q, "Ten."), "rejected": conversation(q, "Eleven.")}
        for q in (f"How much is {i} and {10 - i}?" for i in range(9))
    ]
    found = Preferences.from_rows(rows)
    assert (found.report.rule, len(found)) == ("pairwise", 9)
    assert found[0]["prompt"] == conversation(rows[0]["question"], "")[:1]
    rows[3]["question"] = "Something else is asked here?"
    with pytest.raises(UserError, match="it would lose question"):
        Preferences.from_rows(rows)


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


def test_conversations_of_one_turn_hold_no_prompt() -> None:
    sample = Sample(frozenset({"chosen", "rejected"}), [{"chosen": [GOOD], "rejected": [BAD]}])
    assert not known_formats()["trl-implicit"].fits(sample)
    longer = {**IMPLICIT, "prompt": "x"}
    assert not known_formats()["trl-implicit"].fits(Sample(frozenset(longer), [longer]))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "messages do not end with an assistant turn"),
        ({"messages": [GOOD, USER]}, "messages do not end with an assistant turn"),
        ({"messages": ["x"]}, "messages is not a list of messages"),
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
        if name == "ultrafeedback" and chosen == [GOOD]:
            continue  # a side of one turn is an answer, and the prompt is what is missing
        with pytest.raises(UserError, match=f": 1 {reason}"):
            only({"chosen": chosen, "rejected": rejected} | scores, format=name)


IMPLICIT = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
HH_PAIR = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
PLAIN_PAIR = {"chosen": "Blue.", "rejected": "Black."}
GSM, LETTER = {"question": "q", "answer": "It is 1.\n#### 1"}, {"question": "q", "answer": "b"}


@pytest.mark.parametrize(
    ("most", "others", "name"),
    [(HH_PAIR, PLAIN_PAIR, "hh-rlhf"), (IMPLICIT, PLAIN_PAIR, "trl-implicit"), (GSM, LETTER, "gsm8k")],
)
def test_a_format_that_looks_at_the_rows_needs_more_than_half_of_them(most: Any, others: Any, name: str) -> None:
    format = known_formats()[name]
    columns = frozenset(most)
    assert format.fits(Sample(columns, [others, others, most, most, most]))
    assert not format.fits(Sample(columns, [others, others, most, most]))
    assert not format.fits(Sample(columns, [others, most, others]))


def test_of_several_formats_that_fit_the_one_that_asks_for_most_is_taken() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0}]
    assert find_format("auto", Sample(frozenset(rows[0]), rows), "here").name == "ultrafeedback"
    both = {"prompt": "q", "chosen": "a", "completion": "b", "rejected": "c"}
    with pytest.raises(UserError, match=r"would lose completion.*\nWrite data\.format=pairwise, or remove"):
        find_format("auto", Sample(frozenset(both), [both]), "here")
