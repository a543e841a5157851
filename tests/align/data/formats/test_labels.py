"""Labels that a format does not know for certain: refused before rows are read, or rejected without a way round."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.data.formats import UnknownFormatError
from align.data.load_report import UNKNOWN_LABEL, RowError, Tally
from align.errors import UserError
from tests.align.data.formats.tables import answered, messages, read
from tests.align.data.formats.test_mapping import pasted


def two(
    marks: str, label: str, values: tuple[Any, ...], name: str = "response_", **fields: Any
) -> list[dict[str, Any]]:
    """Six rows with the answers "one" and "two", and one of the labels in turn."""
    sides = {f"{name}{marks[0]}": "one", f"{name}{marks[1]}": "two"}
    return [{**(fields or {"prompt": "q"}), **sides, label: values[i % len(values)]} for i in range(6)]


def single(label: str, *values: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"q{i}", "completion": f"a{i}", label: values[i % len(values)]} for i in range(6)]


ANSWER = [messages(("user", "q"), ("assistant", answer)) for answer in ("one", "two")]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            two("12", "better", (0, 1)),
            "`better` is 0 or 1; it must be 1 where response_1 is better, 2 where response_2",
        ),
        (two("12", "better", ("yes", "no")), '`better` is "no" or "yes"; it must be 1 where'),
        (two("01", "better_response_id", (1, 2)), "`better_response_id` is 1 or 2; it must be 0 where response_0 is"),
        (
            two("12", "overall_preference", (1, 5), "response", context="q"),
            "`overall_preference` is 1 or 5; it must be from −3 where response1 is better to 3",
        ),
        (
            [{"conversation_a": ANSWER[0], "conversation_b": ANSWER[1], "winner": i % 2} for i in range(4)],
            "`winner` is 0 or 1; it must be model_a where conversation_a is better, model_b where",
        ),
        (single("label", 1, -1), "`label` is -1 or 1; it must be true for a good answer, false for a bad one: write"),
        (single("kto_tag", 1, 2), "`kto_tag` is 1 or 2; it must be true"),
        (
            two("12", "label", (0, 1), "output_", input="q"),
            "`label` is 0 or 1 and never 2, so 0 may be a tie or the first of two; it must be 1 where output_1",
        ),
        (two("12", "preference", (0, 1.0), "output_", instruction="q"), "`preference` is 0 or 1.0 and never 2, so 0"),
    ],
)
def test_unknown_labels_are_refused_whatever_may_be_rejected(rows: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        Preferences.from_rows(rows, max_rejected=1.0)
    assert sentence in str(refusal.value)
    assert "max_rejected" not in str(refusal.value)


@pytest.mark.parametrize("labels", [(0, 1), (True, False), ("true", "false"), ("chosen_A", "chosen_B")])
def test_outputs_whose_label_may_mean_either_are_no_layout(labels: tuple[Any, ...]) -> None:
    """HALOs write 1 for the first one, others 0: only the rewards tell that a file is of HALOs."""
    rows = two("AB", "label", labels, "output_")
    with pytest.raises(UnknownFormatError, match=r"which may mean either: write 1 where output_A is better, 2 where"):
        Preferences.from_rows(rows)
    if labels == (0, 1):
        rewarded = [row | {"reward_A": float(row["label"]), "reward_B": 0.5} for row in rows]
        assert [one[1] for one in read(rewarded)[0]] == ["two", "one"] * 3


def test_one_bad_label_among_many_is_a_rejected_row() -> None:
    rows = [{**two("12", "better", (1, 2))[i % 2], "prompt": f"q{i}"} for i in range(40)]
    rows[30]["better"] = 3
    report = Preferences.from_rows(rows, max_rejected=0.03).report
    assert (report.kept, report.rejected) == (39, {UNKNOWN_LABEL: 1})
    with pytest.raises(UserError, match=r"1 unknown label \(rows:31: better is 3\); repair them\.$"):
        Preferences.from_rows(rows)


@pytest.mark.parametrize(("unknown", "refused"), [(5, False), (6, True)])
def test_more_than_a_twentieth_of_unknown_labels_is_never_accepted(unknown: int, refused: bool) -> None:
    """The first rows may be right and later ones count from another number."""
    tally = Tally("f", kept=100 - unknown)
    for line in range(unknown):
        tally.reject(f"f:{line}", RowError(UNKNOWN_LABEL, "better is 0"))
    options: dict[str, Any] = {"rule": "r", "polarity": "p", "max_rejected": 1.0, "remedy": "repair them"}
    if not refused:
        assert tally.close(**options).kept == 95
        return
    with pytest.raises(UserError, match=r"6 of 100 rows rejected \(6\.0%, allowed 5\.0%\).*; repair them\.$"):
        tally.close(**options)


@pytest.mark.parametrize("name", ["score", "rating", "is_fine", "fine as text", "liked", "kto_tags"])
def test_answers_with_a_verdict_are_no_demonstrations(name: str) -> None:
    value = {"is_fine": True, "fine as text": "True"}.get(name, 1)
    rows = single(name, value)
    with pytest.raises(
        UnknownFormatError, match=f"{name} may say that an answer is bad; data.format=prompt-completion"
    ):
        Preferences.from_rows(rows)
    assert Preferences.from_rows(rows, format="prompt-completion").report.kept == 6


@pytest.mark.parametrize("row", [{"prompt": "q", "chosen": "a", "score": 3}, {"text": "A text.", "score": 3}])
def test_a_good_answer_or_a_document_with_a_score_is_no_demonstration_either(row: dict[str, Any]) -> None:
    with pytest.raises(UnknownFormatError, match="score may say that an answer is bad"):
        Preferences.from_rows([row] * 3)


@pytest.mark.parametrize("name", ["label", "kto_tag", "rejected"])
def test_a_label_that_few_rows_have_is_not_dropped(name: str) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(20)]
    rows[-1][name] = "false"
    with pytest.raises(UnknownFormatError, match=f"{name} may say that an answer is bad"):
        Preferences.from_rows(rows)
    assert Preferences.from_rows(rows, format="prompt-completion").report.kept == 20


@pytest.mark.parametrize("name", ["thumbs_down", "is_toxic", "not_helpful"])
def test_no_mapping_is_proposed_for_a_verdict_that_may_be_against_the_answer(name: str) -> None:
    with pytest.raises(UnknownFormatError, match=r"label: COLUMN\}"):
        Preferences.from_rows(single(name, True, False))


ASKED = [("system", "s"), ("user", "q")]


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"instruction": "q", "input": "x", "output": "a", "thumbs_up": False}, ("q\nx", None, "a")),
        ({"messages": messages(("user", "q"), ("assistant", "a")), "liked": 0}, (ASKED[1:], None, answered("a"))),
        ({"system_prompt": "s", "prompt": "q", "response": "a", "label": False}, (ASKED, None, answered("a"))),
        ({"question": "q", "context": "c", "chosen": "a", "rejected": "b"}, ("q\nc", "a", "b")),
        (
            {"instruction": "q", "input": "", "system_prompt": "s", "chosen": "a", "rejected": "b"},
            (ASKED, answered("a"), answered("b")),
        ),
    ],
)
def test_a_proposed_mapping_drops_no_part(row: dict[str, Any], made: tuple[Any, ...]) -> None:
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows([row])
    assert read([row], columns=pasted(str(refusal.value)))[0] == [made]


@pytest.mark.parametrize(
    ("column", "value"),
    [("correct", 0), ("unsafe", 1), ("toxic", "yes"), ("passed", "no"), ("spam", 1), ("downvotes", 3), ("wrong", 1)],
)
def test_a_verdict_in_any_words_is_not_dropped_by_demonstrations(column: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{column} may say that an answer is bad"):
        Preferences.from_rows([{"prompt": f"q{i}", "completion": f"bad {i}", column: value} for i in range(12)])


@pytest.mark.parametrize(
    "label", ["is_first_better", "loser_label", "worse_choice", "not_preferred", "a_preferred", "rejected_choice"]
)
def test_a_label_that_may_name_the_worse_answer_is_not_proposed(label: str) -> None:
    rows = [{"prompt": f"q{i}", "answer_0": f"one {i}", "answer_1": f"two {i}", label: i % 2} for i in range(12)]
    with pytest.raises(UserError) as caught:
        Preferences.from_rows(rows)
    assert f": {label}" not in str(caught.value).rpartition("data.columns=")[2]


@pytest.mark.parametrize("label", ["label_bad", "toxic_label", "is_rejected", "kto_negative", "label_is_bad"])
def test_a_label_that_may_say_bad_is_not_proposed(label: str) -> None:
    rows = [{"prompt": f"q{i}", "completion": f"answer {i}", label: i % 2} for i in range(12)]
    with pytest.raises(UserError) as caught:
        Preferences.from_rows(rows)
    assert f"label: {label}" not in str(caught.value)


def test_strengths_of_one_sign_may_count_from_elsewhere() -> None:
    rows = [
        {"prompt": f"q{i}", "response_1": f"one {i}", "response_2": f"two {i}", "preference_strength": 1 + i % 2}
        for i in range(12)
    ]
    with pytest.raises(UserError, match="all of one sign"):
        Preferences.from_rows(rows)
    rows[3]["preference_strength"] = -2
    assert len(Preferences.from_rows(rows)) == 12


def test_many_zeros_are_no_ties() -> None:
    rows = [{"instruction": f"q{i}", "output_1": f"one {i}", "output_2": f"two {i}", "label": i % 3} for i in range(12)]
    with pytest.raises(UserError, match="so often 0"):
        Preferences.from_rows(rows)
