"""Bad rows at random places in random formats and files, and any JSON in any column: rejected with reason and place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from align.data import Preferences
from align.data.formats import BUILT_IN, known_formats
from align.errors import UserError
from tests.align.data.formats.test_mapping import GOOD, assert_short
from tests.align.data.formats.test_rankings import helpful
from tests.align.data.test_bad_rows import MESSAGE_ROWS, TEXT_ROWS

Row = dict[str, Any]
Parts = dict[str, Any]
"""prompt, chosen and rejected, as texts or as lists of messages."""


def _turned(parts: Parts) -> Row:
    return {side: [*parts["prompt"], *parts[side]] for side in ("chosen", "rejected")}


def _sharegpt(turns: Any) -> Any:
    """Turns under the names of ShareGPT, as far as they are turns."""
    names = {"role": "from", "content": "value"}
    return [{names.get(name, name): value for name, value in turn.items()} for turn in turns]


PAIRS_OF_TEXTS: dict[str, Callable[[Parts], Row]] = {
    "pairwise": lambda p: p,
    "alpaca-pairs": lambda p: {"instruction": p["prompt"], **{side: p[side] for side in ("chosen", "rejected")}},
    "argilla": lambda p: {
        "instruction": p["prompt"], "chosen_response": p["chosen"], "rejected_response": p["rejected"]
    },
    "orca-pairs": lambda p: {"question": p["prompt"], "chosen": p["chosen"], "rejected": p["rejected"]},
    "stack-exchange-paired": lambda p: {
        "question": p["prompt"], "response_j": p["chosen"], "response_k": p["rejected"]
    },
    "labelled": lambda p: {
        "prompt": p["prompt"], "response_1": p["rejected"], "response_2": p["chosen"], "better": "2"
    },
    "halos": lambda p: {
        "prompt": p["prompt"], "output_A": p["chosen"], "output_B": p["rejected"], "label": 1,
        "reward_A": 2.0, "reward_B": 1.0,
    },
    "pku-saferlhf": lambda p: {
        "prompt": p["prompt"], "response_0": p["rejected"], "response_1": p["chosen"], "better_response_id": 1
    },
}  # fmt: skip
ONE_TEXT: dict[str, Callable[[Parts], Row]] = {
    "kto": lambda p: {"prompt": p["prompt"], "completion": p["chosen"], "label": True},
    "prompt-completion": lambda p: {"prompt": p["prompt"], "completion": p["chosen"]},
    "demonstration": lambda p: {"prompt": p["prompt"], "chosen": p["chosen"]},
    "alpaca": lambda p: {"instruction": p["prompt"], "input": "", "output": p["chosen"]},
}
PAIRS_OF_MESSAGES: dict[str, Callable[[Parts], Row]] = {
    "pairwise": lambda p: p,
    "trl-implicit": _turned,
    "ultrafeedback": lambda p: {"prompt": None, **_turned(p), "score_chosen": 2.0, "score_rejected": 1.0},
    "sharegpt-pairs": lambda p: {
        "conversations": _sharegpt(p["prompt"]), **{s: _sharegpt(p[s])[0] for s in ("chosen", "rejected")}
    },
    "torchtune": lambda p: {f"{side}_conversations": turns for side, turns in _turned(p).items()},
    "ms-swift": lambda p: {"messages": _turned(p)["chosen"], "rejected_messages": _turned(p)["rejected"]},
    "openai-preference": lambda p: {
        "input": {"messages": p["prompt"]}, "preferred_output": p["chosen"], "non_preferred_output": p["rejected"]
    },
}  # fmt: skip
ONE_OF_MESSAGES: dict[str, Callable[[Parts], Row]] = {
    "messages": lambda p: {"messages": _turned(p)["chosen"]},
    "sharegpt": lambda p: {"conversations": _sharegpt(_turned(p)["chosen"])},
    "kto-messages": lambda p: {"messages": _turned(p)["chosen"], "label": True},
}
NOT_IN_A_CONVERSATION = ("1 no message", "22 ", "23 ", "27 prompt ends", "a list with")
"""Kinds of bad rows that only columns of their own can have."""
FORMATS = [
    *(("text", True, name, make) for name, make in PAIRS_OF_TEXTS.items()),
    *(("text", False, name, make) for name, make in ONE_TEXT.items()),
    *(("messages", True, name, make) for name, make in PAIRS_OF_MESSAGES.items()),
    *(("messages", False, name, make) for name, make in ONE_OF_MESSAGES.items()),
]
OTHER_REASONS = {
    ("alpaca-pairs", "prompt is null"): "instruction or input is not text",
    ("argilla", "prompt is null"): "instruction or input is not text",
    ("alpaca", "prompt is null"): "instruction or input is not text",
    ("openai-preference", "prompts differ before the last turn"): "rejected is not one assistant message",
}
FEW = settings(max_examples=3, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


def good_row(kind: str, number: int, word: str) -> Parts:
    texts = {"prompt": f"Question {number}: {word}?", "chosen": f"Yes, {word}.", "rejected": f"No, {word}."}
    if kind == "text":
        return texts
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {part: [{"role": roles[part], "content": text}] for part, text in texts.items()}


def bad_rows(kind: str, both: bool, name: str, make: Callable[[Parts], Row]) -> list[tuple[Row | str, str]]:
    """Every kind of bad row that the format can have, as a row or a line of JSON, with its reason."""
    found: list[tuple[Row | str, str]] = []
    for title, fields, reason in TEXT_ROWS if kind == "text" else MESSAGE_ROWS:
        own = {part: value for part, value in fields.items() if part in ("prompt", "chosen", "rejected")}
        shared = {column: value for column, value in fields.items() if column in ("margin", "weight", "answer")}
        if own.keys() | shared.keys() != fields.keys() or (not both and "rejected" in own):
            continue
        if (
            kind == "messages"
            and name not in ("pairwise", "openai-preference")
            and title.startswith(NOT_IN_A_CONVERSATION)
        ):
            continue
        row = make({**good_row(kind, 99, "x"), **own}) | shared
        found.append((row, OTHER_REASONS.get((name, reason), reason)))
    whole = make(good_row(kind, 98, "y"))
    first, *rest = whole
    found.append((json.dumps({column: whole[column] for column in rest}), "missing column"))
    found.append((json.dumps(whole)[:-1] + f", {json.dumps(first)}: 1}}", "duplicate keys"))
    return [*found, (json.dumps([whole]), "not an object"), (json.dumps(whole)[:-9], "invalid JSON")]


TEXTS = st.text(max_size=6) | st.sampled_from(
    [
        "a",
        "\ud800",
        "\0",
        "[",
        "{}",
        '[{"role": "user", "content": "x"}]',
        "1e999",
        "tie",
        "A",
        "\n\nHuman: q\n\nAssistant: a",
    ]
)
NAMES = """
    role content from value text type function name arguments tool_calls messages answer rank response annotations
    Rating output full_text prompt_conversation completion_A completion title post
""".split()  # noqa: SIM905
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, 2**63]) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
LAYOUTS = dict(GOOD) | {"helpsteer": [helpful("q", "a", 1), helpful("q", "b", 2)]}
"""Good rows of every format."""


def said(preferences: Preferences) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "place"} for row in preferences]


def mixed(generator: Random, good: list[Row], bad: list[tuple[Row | str, str]]) -> list[tuple[Row | str, str | None]]:
    """Good and bad rows in a random order; the good ones keep theirs, and the last is one of them."""
    rows: list[tuple[Row | str, str | None]] = [(row, None) for row in good]
    for one in bad:
        rows.insert(generator.randrange(len(rows)), one)
    return rows


def assert_rejected(path: Path, rows: list[Any], name: str, reasons: list[str | None], alone: list[Any]) -> None:
    preferences = Preferences.load(path, max_rejected=1.0)
    report = preferences.report
    assert report.rule == name
    assert report.rejected == Counter(reason for reason in reasons if reason)
    for reason in report.rejected:
        places = [f"{path.name}:{line}: {reason}" for line, own in enumerate(reasons, 1) if own == reason]
        shown = report.examples[reason]
        assert len(shown) == min(3, len(places))
        assert all(map(str.startswith, shown, places))
    assert said(preferences) == alone
    assert (report.read, report.kept) == (len(rows), len(alone))
    with pytest.raises(UserError) as refusal:
        Preferences.load(path)
    assert_short(refusal.value)
    assert all(reason in str(refusal.value) for reason in report.rejected)


@pytest.mark.parametrize(
    ("kind", "both", "name", "make"), FORMATS, ids=[f"{name}-{kind}" for kind, _, name, _ in FORMATS]
)
@FEW
@given(st.lists(WORDS, min_size=60, max_size=60), st.randoms(use_true_random=False))
def test_bad_rows_of_every_kind(
    kind: str, both: bool, name: str, make: Callable[[Parts], Row], tmp_path: Path, words: list[str], generator: Random
) -> None:
    """The same reason wherever they stand; the other rows are as they are without them."""
    good = [make(good_row(kind, number, word)) for number, word in enumerate(words)]
    alone = said(Preferences.from_rows(good))
    assert len(alone) == len(good)
    rows = mixed(generator, good, bad_rows(kind, both, name, make))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row, _ in rows), "utf-8")
    assert_rejected(path, rows, name, [reason for _, reason in rows], alone)


@pytest.mark.parametrize(
    ("kind", "both", "name", "make"), FORMATS, ids=[f"{name}-{kind}" for kind, _, name, _ in FORMATS]
)
@FEW
@given(st.lists(WORDS, min_size=60, max_size=60), st.randoms(use_true_random=False))
def test_bad_rows_in_parquet(
    kind: str, both: bool, name: str, make: Callable[[Parts], Row], tmp_path: Path, words: list[str], generator: Random
) -> None:
    """As far as its columns can have them: with one type each, in which what is missing is null."""
    good = [make(good_row(kind, number, word)) for number, word in enumerate(words)]
    bad = [
        (row, "content is null" if reason == "message without content" else reason)
        for row, reason in bad_rows(kind, both, name, make)
        if isinstance(row, dict) and has_types_of(row, good[0])
    ]
    rows = mixed(generator, good, bad)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row for row, _ in rows]), path)
    assert_rejected(path, rows, name, [reason for _, reason in rows], said(Preferences.from_rows(good)))


def has_types_of(row: Row, other: Row) -> bool:
    try:
        return row.keys() == other.keys() and bool(pa.Table.from_pylist([other, row]))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return False


def test_every_format_is_fuzzed() -> None:
    assert set(LAYOUTS) == {format.name for format in BUILT_IN}


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(LAYOUTS)), st.booleans(), st.booleans(), JSON, st.data())
def test_any_value_in_any_column_is_read_or_refused(
    name: str, by_name: bool, alone: bool, value: Any, data: Any
) -> None:
    """In one row or in all: no error of another kind, and what is said can be printed."""
    rows = [dict(row) for row in LAYOUTS[name][:4]]
    column = data.draw(st.sampled_from(sorted(known_formats()[name].columns)))
    for row in rows[-1:] if alone else rows:
        row[column] = value
    try:
        preferences = Preferences.from_rows(rows, format=name if by_name else "auto", max_rejected=1.0)
    except UserError as refusal:
        assert_short(refusal)
        return
    assert preferences.report.summary().encode()
    list(preferences.as_pairs())  # a demonstration with the label of a ranking gives none
