"""Agreement and win rate, by hand."""

from __future__ import annotations

import pytest

from align.labelling.results import agreements, contest, report
from align.labelling.session import Session, Verdict
from tests.align.labelling.conftest import Begin, made_pair


def prefer(session: Session, annotator: str, number: int, answer: int | str) -> None:
    """Judge a pair: the number of the answer that is better, or a verdict."""
    pair = session.pairs[number]
    verdict: Verdict = answer  # pyright: ignore[reportAssignmentType]
    if isinstance(answer, int):
        verdict = "left" if session.left(annotator, pair) == answer else "right"
    session.judge(annotator, pair, verdict, seconds=number)


def test_kappa_of_two_annotators_by_hand(begin: Begin) -> None:
    """Ten pairs, the same verdict on 7: ann says 5 first, 3 second, 2 ties; bob 4, 4, 2.

    p_o = .7, p_e = .5·.4 + .3·.4 + .2·.2 = .36, κ = (.7 − .36)/(1 − .36) = .53125; their sides differ.
    """
    session = begin(count=12)
    ann = (0, 0, 0, 0, 0, 1, 1, 1, "tie", "tie")
    bob = (0, 0, 0, 1, "tie", 1, 1, 1, 0, "tie")
    for name, verdicts in (("bob", bob), ("ann", ann)):
        for number, verdict in enumerate(verdicts):
            prefer(session, name, number, verdict)
    prefer(session, "ann", 10, "skip")
    prefer(session, "bob", 10, 0)
    prefer(session, "ann", 11, 0)
    (found,) = agreements(session.judgements)
    assert (found.first, found.second, found.pairs, found.same) == ("ann", "bob", 10, 7)
    assert found.kappa == pytest.approx(0.53125)
    assert "ann and bob: the same verdict on 7 of 10 pairs, Cohen's κ = 0.53." in report(session)


def test_kappa_of_annotators_who_never_differ_is_not_defined(begin: Begin) -> None:
    session = begin()
    for name in ("ann", "bob"):
        for number in range(3):
            prefer(session, name, number, 1)
    (found,) = agreements(session.judgements)
    assert found.kappa is None
    assert found.sentence().endswith("κ is not defined, they never differ.")


def test_annotators_without_a_common_pair_are_not_compared(begin: Begin) -> None:
    session = begin()
    prefer(session, "ann", 0, 0)
    prefer(session, "bob", 1, 0)
    assert agreements(session.judgements) == []


def test_the_win_rate_counts_ties_both_bad_and_equal_answers_half(begin: Begin) -> None:
    """3 wins, 1 loss, a tie, both bad, and the equal answers that were passed: 4.5 of 7. Those behind do not count."""
    pairs = [made_pair(i) for i in range(8)]
    pairs[2], pairs[7] = made_pair(2, "same", "same"), made_pair(7, "same", "same")
    session = begin(*pairs, against="runs/two")
    assert contest(session) is None
    for number, verdict in ((0, 0), (1, 0), (3, 0), (4, 1), (5, "tie"), (6, "bad")):
        prefer(session, "ann", number, verdict)
    found = contest(session)
    assert found is not None
    assert (found.won.mean, found.won.n) == (pytest.approx(4.5 / 7), 7)
    assert found.more is not None
    assert found.more > 20  # a difference of 1/7 with a standard deviation near .38: (2.8 · .38 · 7)² is about 55


def test_how_many_more_would_decide(begin: Begin) -> None:
    """Of 20, 13 wins and 7 losses: d = .15, s² = (13·.35² + 7·.65²)/19 = .2395.

    With Student's quantiles of 85 degrees, 1.988 + .846, n = s²·(2.834/.15)² = 85.5, so that 66 more are needed.
    """
    session = begin(count=20, against="runs/two")
    for number in range(20):
        prefer(session, "ann", number, int(number >= 13))
    found = contest(session)
    assert found is not None
    assert found.more == 66
    assert found.sentence("one", "two").startswith("one wins 65.0% (95 % interval ")
    assert found.sentence("one", "two").endswith("over two: about 66 more would decide if they differ that much.")


@pytest.mark.parametrize(("wins", "of", "more"), [(10, 10, 0), (1, 1, None), (5, 10, None)])
def test_decided_too_early_to_say_and_no_difference(wins: int, of: int, more: int | None, begin: Begin) -> None:
    session = begin(count=of, against="runs/two")
    for number in range(of):
        prefer(session, "ann", number, int(number >= wins))
    found = contest(session)
    assert found is not None
    assert found.more == more


def test_two_annotators_of_a_pair_are_one_group(begin: Begin) -> None:
    """The same verdicts twice say no more about the runs than once."""
    session = begin(count=20, against="runs/two")
    for number in range(20):
        prefer(session, "ann", number, int(number >= 13))
    once = contest(session)
    for number in range(20):
        prefer(session, "bob", number, int(number >= 13))
    twice = contest(session)
    assert once is not None
    assert twice is not None
    assert (twice.won.mean, twice.won.low, twice.more) == pytest.approx((once.won.mean, once.won.low, once.more))


def test_the_report(begin: Begin) -> None:
    session = begin(made_pair(0, second=" "), *(made_pair(i) for i in range(1, 6)))
    for number, verdict in enumerate(("left", "left", "right", "tie", "bad", "skip")):
        prefer(session, "ann", number, verdict)
    lines = report(session)
    assert lines[0].startswith(
        "ann: 3 preferred, 1 tied, 1 both bad, 1 skipped; median 2.5 s; chose the left side in 66.7% (95 % interval "
    )
    assert lines[1].endswith(
        "labels.jsonl: 2 pairs; those tied or both bad, 2, are not in it, nor 1 with a blank answer."
    )
