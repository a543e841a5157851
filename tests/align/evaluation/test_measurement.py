"""Tables of ``evaluation.json`` by hand: means, intervals, counts, who won, and which samples are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from align.evaluation.measurement import Measurement, Sample, compare, showcase, tabulate, win_rate

T = 4.302653  # Student's t at .975 with two degrees of freedom


def sample(score: float, *, tokens: int = 3, kl: float | None = 0.5, text: str = "a b", **scores: float) -> Sample:
    return Sample("p", text, tokens, kl, {"first": score, **scores})


THREE = Measurement(
    [sample(-1.0, tokens=1, kl=0.0), sample(0.0, tokens=2, kl=None), sample(1.0, tokens=6, kl=1.0)],
    [1.0, 0.5, 0.0, 1.0],
)


def test_means_and_intervals_by_hand() -> None:
    """Scores −1, 0, 1 have the standard error 1/√3; lengths 1, 2, 6 have √7/√3; both KL are those that there are."""
    found = THREE.estimates()
    assert {name: (estimate.mean, estimate.n) for name, estimate in found.items()} == {
        "first": (0.0, 3),
        "kl": (0.5, 2),
        "response_length": (3.0, 3),
        "preference_accuracy": (0.625, 4),
    }
    first = found["first"]
    assert (first.low, first.high) == (pytest.approx(-T / 3**0.5, abs=1e-5), pytest.approx(T / 3**0.5, abs=1e-5))
    lengths = found["response_length"]
    assert (lengths.low, lengths.high) == (0.0, pytest.approx(3 + T * (7 / 3) ** 0.5, abs=1e-5))
    assert (found["kl"].low, found["kl"].high) == (0.0, pytest.approx(0.5 + 12.7062 * 0.5, abs=1e-3))
    assert THREE.metrics() == {name: estimate.mean for name, estimate in found.items()}


def test_diversity_is_that_of_pairs_of_words_from_sixteen_responses_on() -> None:
    """Sixteen times "a b c" has two distinct pairs of 32."""
    sixteen = Measurement([sample(0.0, text="a b c")] * 16)
    assert sixteen.metrics()["distinct_2"] == pytest.approx(2 / 32)
    assert "distinct_2" not in Measurement(sixteen.samples[:15]).metrics()
    assert "distinct_2" not in sixteen.estimates()


def test_what_was_not_measured_has_no_entry() -> None:
    assert Measurement([]).metrics() == {}
    assert Measurement([], [1.0, 0.0]).metrics() == {"preference_accuracy": 0.5}
    assert "kl" not in Measurement([sample(1.0, kl=None)]).metrics()


def test_columns_intervals_and_counts_of_a_comparison() -> None:
    before = Measurement([sample(0.0, kl=None)] * 2, [1.0])
    after = Measurement([sample(1.0), sample(3.0)])
    table = compare(before, after)
    assert table["metrics"] == {
        "first": {"before": 0.0, "after": 2.0},
        "response_length": {"before": 3.0, "after": 3.0},
        "preference_accuracy": {"before": 1.0, "after": None},
        "kl": {"before": None, "after": 0.5},
    }
    assert table["n"] == {"prompts": 2, "pairs": 0}
    assert set(table["intervals"]["first"]) == {"before", "after"}
    assert set(table["intervals"]["kl"]) == {"after"}
    assert table["intervals"]["first"]["after"]["mean"] == 2.0
    assert (table["win_rate"]["by"], table["win_rate"]["mean"], table["win_rate"]["n"]) == ("first", 1.0, 2)
    assert tabulate({"model": before})["n"] == {"prompts": 2, "pairs": 1}


def test_the_first_scorer_decides_and_the_second_model_is_the_one_that_wins() -> None:
    """Three wins, a tie (a difference below 10⁻⁹) and a loss of five; the other scorer says the contrary."""
    before = Measurement([sample(0.0, other=1.0)] * 5)
    after = Measurement([sample(score, other=-score) for score in (1.0, 0.1, 1e-8, 1e-10, -1.0)])
    won = win_rate(before, after)
    assert won is not None
    assert (won["by"], won["mean"], won["n"]) == ("first", pytest.approx(3.5 / 5), 5)
    lost = win_rate(after, before)
    assert lost is not None
    assert lost["mean"] == pytest.approx(1.5 / 5)
    plain = Measurement([replace(one, scores={}) for one in before.samples])
    assert win_rate(plain, plain) is None
    assert win_rate(Measurement([]), Measurement([])) is None


@pytest.mark.parametrize(
    ("sources", "limit", "shown"),
    [
        ("aaabbc", 4, [0, 1, 3, 5]),  # one of each, then the first of the others
        ("aaabbc", 3, [0, 3, 5]),
        ("aaabbc", 2, [0, 3]),
        ("cbaabc", 5, [0, 1, 2, 3, 4]),
        ("aab", 9, [0, 1, 2]),
        ("aab", 0, []),
        ("", 3, []),
    ],
)
def test_one_sample_of_each_source_is_shown_first(sources: str, limit: int, shown: list[int]) -> None:
    samples = [replace(sample(0.0), source=source) for source in sources]
    assert showcase(samples, limit) == shown
