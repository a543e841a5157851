"""Recognition: small changes of known layouts, unknown ones, and the mapping that a refusal proposes."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data import Preferences
from align.data.formats import BUILT_IN, UnknownFormatError, known_formats
from align.data.load_report import UNKNOWN_LABEL
from align.errors import UserError
from tests.align.data.formats import test_demonstrations, test_labelled, test_pairs, test_rankings, test_tokens
from tests.align.data.formats.tables import messages, read

_MODULES = (test_pairs, test_labelled, test_rankings, test_demonstrations, test_tokens)
TABLES: dict[str, Any] = {name: tables for module in _MODULES for name, tables in module.TABLES.items()}
CASES = [
    (name, [row for row, outcome in table if outcome != UNKNOWN_LABEL])
    for name, tables in TABLES.items()
    for table in tables
]
GOOD = [
    (name, [row for row, outcome in table if not isinstance(outcome, str)])
    for name, tables in TABLES.items()
    for table in tables
]
IDS = [f"{name}{i}" for i, (name, _) in enumerate(CASES)]


def pasted(refusal: str) -> dict[str, Any]:
    """Return the mapping of a refusal as the command line reads it from a shell."""
    (shown,) = re.findall(r"data\.columns='(\{.*?\})'(?: |$)", refusal)
    value: Any = OverridesParser.create().parse_override("data.columns=" + shown.replace("'\\''", "'")).value()
    return {str(new): str(old) for new, old in value.items()}


def assert_short(refusal: UserError) -> None:
    assert str(refusal).encode().count(b"\n") < 3


def test_every_format_has_a_table() -> None:
    assert {format.name for format in BUILT_IN} == {*TABLES, "helpsteer"}
    assert all(format.description and format.polarity for format in BUILT_IN)


METADATA: dict[str, Any] = {
    "row_id": "f3a9",
    "model_name": "gpt-4-1106-preview",
    "timestamp": 1700000000.5,
    "created_at": "2024-01-01T00:00:00Z",
    "split_name": "train",
    "language": "English",
    "temperature": 0.25,
    "empty_list": [],
    "nothing": None,
    "tags": ["x", "y"],
}


@pytest.mark.parametrize(("name", "rows"), CASES, ids=IDS)
def test_metadata_and_another_order_of_columns_change_nothing(name: str, rows: list[dict[str, Any]]) -> None:
    expected, report = read(rows)
    about = (
        METADATA if known_formats()[name].gives == "demonstrations" else METADATA | {"is_safe": True, "toxicity": 0.25}
    )
    changed = [dict(sorted((row | about).items(), reverse=True)) for row in rows]
    made, after = read(changed)
    assert (after.rule, made, after.rejected, after.left_out) == (name, expected, report.rejected, report.left_out)


@pytest.mark.parametrize("rows", [rows for _, rows in CASES], ids=IDS)
def test_a_renamed_column_is_read_rightly_or_refused(rows: list[dict[str, Any]]) -> None:
    """Never is another column taken in its place: what is read is a part of what the layout gives."""
    expected, _ = read(rows)
    answers = {repr(one[:3]) for one in expected}
    for column in sorted(set().union(*rows)):
        renamed = [{(f"my_{column}" if key == column else key): value for key, value in row.items()} for row in rows]
        try:
            made, _ = read(renamed)
        except UserError as refusal:
            assert_short(refusal)
            continue
        assert {repr(one[:3]) for one in made} <= answers, column


OTHERS = ["my_{}", "{}_text", "the {}", "{}s", "old-{}", "zz", "x"]


def spelled_out(value: Any, texts: set[str]) -> Any:
    """Make the short texts of a table long, as real ones are."""
    if isinstance(value, dict):
        return {name: item if name in LABELS else spelled_out(item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [spelled_out(item, texts) for item in value]
    return PROSE.format(value) if isinstance(value, str) and value in texts else value


LABELS = {"better", "winner", "label", "labels", "preference", "choice", "kto_tag"}


def parts(made: Iterable[tuple[Any, ...]]) -> set[tuple[str, Any]]:
    """The questions, chosen and rejected answers of rows, without what stands before a question."""
    return {
        (part, value if isinstance(value, str) else value[-1][1])
        for one in made
        for part, value in zip(("prompt", "chosen", "rejected"), one, strict=False)
        if value is not None
    }


@pytest.mark.parametrize(("name", "rows"), GOOD, ids=IDS)
def test_one_or_two_columns_under_other_names(name: str, rows: list[dict[str, Any]]) -> None:
    """They are read rightly, or refused with a mapping that, pasted, is read rightly or refused again."""
    short, _ = read(rows)
    texts = {line for _, text in parts(short) for line in (text, *text.split("\n"))}
    if name != "gsm8k":  # its answers are numbers
        rows = spelled_out(rows, texts)
    rows = [row for row in rows if row.keys() == rows[0].keys()]
    expected, report = read(rows)
    assert report.rule == name
    needed = sorted(known_formats()[name].requires)
    generator = random.Random(name)
    for renamed in itertools.chain(itertools.combinations(needed, 1), itertools.combinations(needed, 2)):
        names = [other.format(column) for other, column in zip(generator.sample(OTHERS, 2), renamed, strict=False)]
        new = dict(zip(renamed, names, strict=True))
        others = [{new.get(column, column): value for column, value in row.items()} for row in rows]
        for part, text in parts(read_or_pasted(others)):
            known = [own for kind, own in parts(expected) if kind == part]
            assert any(own.startswith(text) if part == "prompt" else own == text for own in known), new


def read_or_pasted(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Read rows, if need be with the mapping that a refusal proposes; none if it leaves a gap or is refused."""
    try:
        return read(rows)[0]
    except UserError as refusal:
        assert_short(refusal)
        if "data.columns=" not in str(refusal):
            return []
        columns = pasted(str(refusal))
    try:
        return [] if "COLUMN" in columns.values() else read(rows, columns=columns)[0]
    except UserError as refusal:
        assert_short(refusal)
        return []


PROSE = "It is a rather long text about {} and nothing else."


def unknown(**columns: Any) -> list[dict[str, Any]]:
    """Rows with texts of their own in the columns whose value is a text."""
    return [{n: f"{v} {i}" if isinstance(v, str) else v for n, v in columns.items()} for i in range(5)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"problem": "q", "good": "a", "bad": "b"}, ("q", "a", "b")),
        ({"problem": "q", "chosen": "a", "rejected": "b", "id": "x"}, ("q", "a", "b")),
        ({"prompt_id": "x", "user_query": "q", "better_answer": "a", "worse_answer": "b"}, ("q", "a", "b")),
        (
            {"question": "q", "chosen_model": "m", "chosen_answer": "a", "rejected_model": "m", "rejected_answer": "b"},
            ("q", "a", "b"),
        ),
        ({"Frage": "q", "winnerText": "a", "loserText": "b"}, ("q", "a", "b")),
        ({"the task": "q", "positive reply": "a", "negative reply": "b"}, ("q", "a", "b")),
        ({"task: text": "q", "good (gold)": "a", "bad": "b"}, ("q", "a", "b")),
        ({"问题": "q", "preferred": "a", "dispreferred": "b"}, ("q", "a", "b")),
        ({"it's": "q", "good": "a", "bad": "b"}, ("q", "a", "b")),
        ({"problem": "q", "solution": "a"}, ("q", "a", None)),
        ({"question": "q", "answer": "a"}, ("q", "a", None)),
        ({"prompt": "q", "best_answer": "a"}, ("q", "a", None)),
        ({"prompt": "q", "response": "a", "label": False}, ("q", None, "a")),
        ({"prompt": "q", "completion": "a", "thumbs_up": True}, ("q", "a", None)),
        ({"question": "q", "reply": "a", "liked": False}, ("q", None, "a")),
        (
            {"prompt": messages(("user", "q")), "good": "a", "bad": "b"},
            ([("user", "q")], [("assistant", "a")], [("assistant", "b")]),
        ),
    ],
)
def test_a_proposed_mapping_gives_the_right_rows(columns: dict[str, Any], expected: tuple[Any, ...]) -> None:
    rows = unknown(**columns)
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows(rows)
    assert str(refusal.value).count("\n") < 3
    made, _ = read(rows, columns=pasted(str(refusal.value)))

    def numbered(value: Any) -> Any:
        return f"{value} 2" if isinstance(value, str) else value

    third = made[2]
    if isinstance(third[0], list):
        expected = (expected[0], *([(role, f"{text} 2") for role, text in side] for side in expected[1:]))
    assert third == tuple(map(numbered, expected))


@pytest.mark.parametrize(
    ("marks", "labels"),
    [
        ("ab", "ab"),
        ("12", ["1", "2"]),
        ("AB", ["model_a", "model_b"]),
        ("01", [0, 1]),
        ("01", ["0", "1"]),
        ("12", [1, 2]),
    ],
)
def test_a_proposed_mapping_keeps_the_polarity_of_a_label(marks: str, labels: Any) -> None:
    """Numbers that begin with 0 belong to responses that do."""
    rows = [
        {"prompt": f"q{i}", f"answer_{marks[0]}": "one", f"answer_{marks[1]}": "two", "winner": labels[i % 2]}
        for i in range(6)
    ]
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows(rows)
    made, _ = read(rows, columns=pasted(str(refusal.value)))
    assert made == [(f"q{i}", *(("one", "two") if i % 2 == 0 else ("two", "one"))) for i in range(6)]


@pytest.mark.parametrize("labels", [(0, 1), ("0", "1"), (True, False)])
def test_where_a_label_may_mean_either_no_mapping_is_proposed_for_it(labels: Any) -> None:
    """0 may be the first of two, or the second (HALOs); even if it is mapped it is no label."""
    rows = [{"prompt": f"q{i}", "answer_a": "one", "answer_b": "two", "label": labels[i % 2]} for i in range(4)]
    with pytest.raises(UnknownFormatError, match=r"better: COLUMN\}"):
        Preferences.from_rows(rows)
    columns = {"response_1": "answer_a", "response_2": "answer_b", "better": "label"}
    with pytest.raises(UserError, match=r"`better` is .* or .*; it must be 1 where response_1 is better, 2"):
        Preferences.from_rows(rows, columns=columns)


def test_lists_of_answers_and_of_their_scores() -> None:
    rows = [{"question": f"q{i}", "replies": ["a", "b"], "reward_scores": [1.0, 2.0]} for i in range(3)]
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows(rows)
    made, report = read(rows, columns=pasted(str(refusal.value)))
    assert report.rule == "scored"
    assert made[0] == ("q0", "b", "a", {"chosen_score": 2.0, "rejected_score": 1.0})


W26 = {
    "bad answers as demonstrations": {"messages": messages(("user", "q"), ("assistant", "a")), "verdict": "bad"},
    "a rejected answer dropped": {"messages": messages(("user", "q"), ("assistant", "a")), "rejected_answer": "b"},
    "answers beside a prompt": {"prompt": "q", "answers": ["a", "b"]},
    "candidates beside a prompt": {"prompt": "q", "candidates": [{"text": "a", "votes": 1}, {"text": "b", "votes": 2}]},
    "a, b and a label": {"prompt": "q", "a": PROSE.format("a"), "b": PROSE.format("b"), "preferred": "a"},
    "short a, b and a label": {"prompt": "q", "a": "x", "b": "y", "preferred": "a"},
    "an explanation beside an answer": {"instruction": "q", "output": "a", "corrected": PROSE.format("b")},
    "a label beside sides": {"prompt": "q", "chosen": "a", "rejected": "b", "label": 0},
    "plain answers alone": {"chosen": "The sky is blue", "rejected": "The sky is black"},
}


@pytest.mark.parametrize("row", W26.values(), ids=W26)
def test_a_layout_that_would_lose_a_part_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(UnknownFormatError, match=r"data\.(columns='\{|format=pairwise, or remove)") as refusal:
        Preferences.from_rows([row] * 3, max_rejected=1)
    assert str(refusal.value).count("\n") < 3


def test_most_scores_against_the_sides_are_refused() -> None:
    """A few are noted; where most pairs have them, the columns are swapped or a lower score is better."""
    rows = [
        {"prompt": f"q{i}", "chosen": "a", "rejected": "b", "chosen_score": 5 - i, "rejected_score": 2}
        for i in range(6)
    ]
    assert Preferences.from_rows(rows).report.noted == {"chosen has a lower score than rejected": 2}
    with pytest.raises(
        UserError, match=r"lower score than rejected in 2 of 3 rows \(rows:2, rows:3\); swap the columns"
    ):
        Preferences.from_rows(rows[3:])


def test_answers_that_repeat_the_prompt_are_refused() -> None:
    rows = [{"prompt": f"Why {i}?", "chosen": f"Why {i}? So.", "rejected": f"Why {i}? Because."} for i in range(3)]
    with pytest.raises(UserError, match=r"begin with the prompt in 3 of 3 rows .*leave the prompt out of the answers"):
        Preferences.from_rows(rows)
    rows += [{"prompt": "q", "chosen": f"a{i}", "rejected": "b"} for i in range(3)]
    assert Preferences.from_rows(rows).report.noted == {"chosen and rejected begin with the prompt": 3}


WORDS = """
    prompt question text input context problem answer response output chosen rejected good bad winner loser label score
    rank a b completion completions messages conversation history instruction solution reply candidates id source reason
    response_1 response_2 answer_a answer_b system tags 0 zz
""".split()  # noqa: SIM905
PROMPT_NAMES = {"prompt", "question", "instruction", "input", "context", "history"}


def shape(kind: str, text: str) -> Any:
    """A value of a kind with a text in it, also nested, and written as text."""
    value = {
        "text": text,
        "list": [text, text + "!"],
        "turn": messages(("assistant", text)),
        "turns": messages(("user", "PROMPT of turns"), ("assistant", text)),
        "number": len(text),
        "flag": True,
        "object": {"text": text},
        "objects": [{"text": text, "score": 1}, {"text": text + "!", "score": 2.5}],
        "answers": [{"answer": text, "rank": 2}, {"answer": text + "!", "rank": 1}],
        "lists": {"text": [text, text + "!"], "score": [1, 2]},
        "sharegpt": [{"from": "human", "value": "PROMPT of turns"}, {"from": "gpt", "value": text}],
        "deep": {"messages": messages(("assistant", text)), "rows": [[{"text": [text]}]]},
        "null": None,
    }
    return json.dumps(value[kind.removeprefix("json ")]) if kind.startswith("json ") else value[kind]


NESTED = ["list", "turn", "turns", "object", "objects", "answers", "lists", "sharegpt", "deep"]
KINDS = st.sampled_from(["text"] * 8 + ["number", "flag", "null", *NESTED, *(f"json {kind}" for kind in NESTED)])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), KINDS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_answers_of_random_layouts_are_never_a_prompt(layout: dict[str, str], generator: random.Random) -> None:
    """Whatever the columns are called: they are refused, or the prompt is the text of a prompt's column."""
    starts = generator.choice(["The sky is", "As an AI, I", "Answer:"])
    rows = [
        {
            name: shape(kind, f"PROMPT {i}" if name in PROMPT_NAMES else f"{starts} {name} {i} and so on")
            for name, kind in layout.items()
        }
        for i in range(3)
    ]
    try:
        made, _ = read(rows)
    except UserError as refusal:
        assert_short(refusal)
        return
    for prompt, *_ in made:
        turns = [("user", prompt)] if isinstance(prompt, str) else prompt
        assert all("PROMPT" in text and starts not in text for role, text in turns if role == "user")


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8), st.none() | st.booleans() | st.text(max_size=30) | st.integers() | st.floats(), max_size=10
    )
)
def test_a_refusal_is_short_whatever_the_columns_are(row: dict[str, Any]) -> None:
    try:
        read([row, row])
    except UserError as refusal:
        assert_short(refusal)
