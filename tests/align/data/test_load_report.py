"""The report of loading, word for word, and the limit at which it becomes an error."""

from __future__ import annotations

import pytest

from align.data.load_report import LoadReport, RowError, Tally
from align.errors import UserError


def tally(kept: int, *, bad: int = 0, worse: int = 0) -> Tally:
    made = Tally("pairs.jsonl", read=kept + bad + worse, kept=kept)
    for line in range(1, bad + 1):
        made.reject(f"pairs.jsonl:{line}", RowError("empty chosen"))
    for line in range(101, worse + 101):
        made.reject(f"pairs.jsonl:{line}", RowError("unknown role", f"wizard {line}"))
    return made


def closed(made: Tally, max_rejected: float, *, may_be_empty: bool = False) -> LoadReport:
    return made.close(
        rule="pairwise",
        polarity="chosen is better",
        max_rejected=max_rejected,
        remedy="repair them",
        may_be_empty=may_be_empty,
    )


def test_a_rejection_is_a_reason_with_a_detail() -> None:
    assert str(RowError("empty chosen")) == "empty chosen"
    assert str(RowError("unknown role", "wizard")) == "unknown role (wizard)"
    assert (RowError("a", "b").reason, RowError("a", "b").detail) == ("a", "b")


def test_the_whole_report() -> None:
    made = tally(1996, bad=1, worse=4)
    for line in (201, 202):
        made.note(f"pairs.jsonl:{line}", "truncated")
    made.warn("b is not read")
    made.warn("a is not read")
    made.warn("b is not read")
    report = closed(made, 0.01)
    assert report == LoadReport(
        source="pairs.jsonl",
        rule="pairwise",
        polarity="chosen is better",
        read=2001,
        kept=1996,
        rejected={"empty chosen": 1, "unknown role": 4},
        noted={"truncated": 2},
        examples={
            "empty chosen": ("pairs.jsonl:1: empty chosen",),
            "unknown role": tuple(f"pairs.jsonl:{n}: unknown role (wizard {n})" for n in (101, 102, 103)),
            "truncated": ("pairs.jsonl:201: truncated", "pairs.jsonl:202: truncated"),
        },
        warnings=("b is not read", "a is not read"),
    )
    assert report.summary() == (
        "pairs.jsonl: 2,001 rows read as pairwise (chosen is better); 1,996 kept, 5 rejected\n"
        "  rejected 4: unknown role\n"
        "    pairs.jsonl:101: unknown role (wizard 101)\n"
        "    pairs.jsonl:102: unknown role (wizard 102)\n"
        "    pairs.jsonl:103: unknown role (wizard 103)\n"
        "  rejected 1: empty chosen\n"
        "    pairs.jsonl:1: empty chosen\n"
        "  kept, but 2: truncated\n"
        "    pairs.jsonl:201: truncated\n"
        "    pairs.jsonl:202: truncated\n"
        "  warning: b is not read\n"
        "  warning: a is not read"
    )


@pytest.mark.parametrize(("bad", "kept", "limit", "passes"), [(1, 99, 0.01, True), (2, 98, 0.01, False)])
def test_the_limit_itself_is_allowed(bad: int, kept: int, limit: float, passes: bool) -> None:
    if passes:
        assert closed(tally(kept, bad=bad), limit).rejected == {"empty chosen": bad}
    else:
        with pytest.raises(UserError, match=r"2 of 100 rows rejected \(2\.0%, allowed 1\.0%\)"):
            closed(tally(kept, bad=bad), limit)


def test_the_error_names_reasons_places_and_the_limit_that_is_enough() -> None:
    with pytest.raises(UserError) as error:
        closed(tally(93, bad=1, worse=4), 0.01)
    assert str(error.value) == (
        "pairs.jsonl: 5 of 98 rows rejected (5.1%, allowed 1.0%): 4 unknown role (pairs.jsonl:101, pairs.jsonl:102, "
        "pairs.jsonl:103); 1 empty chosen (pairs.jsonl:1); repair them, or accept the loss with "
        "data.max_rejected=0.052."
    )


def test_that_nothing_is_left_is_an_error_unless_it_may_be() -> None:
    with pytest.raises(UserError) as error:
        closed(tally(0, bad=2), 1.0)
    assert str(error.value) == (
        "pairs.jsonl: 2 of 2 rows rejected (none is left): 2 empty chosen (pairs.jsonl:1, pairs.jsonl:2); repair them."
    )
    assert closed(tally(0, bad=2), 1.0, may_be_empty=True).rejected == {"empty chosen": 2}
    with pytest.raises(UserError, match=r"\(100\.0%, allowed 50\.0%\).*; repair them\.$"):
        closed(tally(0, bad=2), 0.5, may_be_empty=True)
    assert closed(tally(0), 0.0).kept == 0


def test_rows_that_become_several_count_as_those() -> None:
    """The share is of what was made, not of what was read: of one row, two of three are good."""
    made = tally(2, bad=1)
    made.read = 1
    with pytest.raises(UserError, match=r"1 of 3 rows rejected \(33\.3%, allowed 30\.0%\)"):
        closed(made, 0.3)
