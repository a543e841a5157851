"""Rejection sampling: the seven strings of docs/methods.md, the rule on collisions, scores, real solutions."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import UserError
from methods.rft.rejection import LONGEST_SAMPLE, select_best, select_paths
from methods.rft.solution_equations import path_key

SEVEN = [
    "3+4=<<3+4=7>>7. #### 7",
    "4+3=<<4+3=7>>7. #### 7",
    "We add: 3+4=<<3 + 4=7>>7 apples in total. #### 7",
    "3+4=<<3+4=8>>8, so 7. #### 7",
    "It is 7. #### 7",
    "50%: <<50%*14=7>>7 #### 7",
    "<<1,000-993=7>>7 #### 7",
]


def test_seven_strings_as_the_authors_filter_them() -> None:
    selection = select_paths(SEVEN, "7", strict_reference=True)
    assert selection.kept == (2, 1, 4)
    assert [path_key(SEVEN[i], strict_reference=True) for i in selection.kept] == ["3+4=7", "4+3=7", ""]
    assert selection.fates == (
        *("duplicate", "kept", "kept", "wrong_equation", "kept", "wrong_equation", "wrong_equation"),
    )
    assert selection.counts == {"kept": 3, "duplicate": 1, "wrong_equation": 3}


def test_seven_strings_with_percentages_and_thousands() -> None:
    selection = select_paths(SEVEN, "7")
    assert selection.kept == (2, 1, 4, 5, 6)
    assert [path_key(SEVEN[i]) for i in selection.kept] == ["3+4=7", "4+3=7", "", "0.5*14=7", "1000-993=7"]
    assert selection.counts == {"kept": 5, "duplicate": 1, "wrong_equation": 1}


@pytest.mark.parametrize(
    ("sample", "fate", "reference"),
    [
        ("#### 7", "kept", "kept"),
        ("#### 7.00 apples", "kept", "kept"),
        ("#### $7", "kept", "no_answer"),
        ("A: 7", "kept", "no_answer"),
        (r"so \boxed{7}", "kept", "no_answer"),
        ("####7", "kept", "no_answer"),
        ("#### 8", "wrong_answer", "wrong_answer"),
        ("#### -7", "wrong_answer", "wrong_answer"),
        ("#### seven", "kept", "no_answer"),
        ("#### eight", "wrong_answer", "no_answer"),
        ("#### 1.2.3", "wrong_answer", "no_answer"),
        ("#### 7 and #### 8", "wrong_answer", "kept"),  # the authors read the first, we the last
        ("#### 8 and #### 7", "kept", "wrong_answer"),
        ("<think>#### 7</think> it is 7", "no_answer", "kept"),  # thoughts are no answer of ours
        ("<think>#### 8</think> #### 7", "kept", "wrong_answer"),
        ("#### 7 <think>#### 8", "no_answer", "kept"),  # cut off while it thinks
        ("it is 7", "no_answer", "no_answer"),
        ("####", "no_answer", "no_answer"),
        ("", "no_answer", "no_answer"),
        ("<<3+4=8>> #### 8", "wrong_answer", "wrong_answer"),
        ("<<3+4=8>> #### 7", "wrong_equation", "wrong_equation"),
        ("<<3+4=7>> <<x=7>> #### 7", "wrong_equation", "wrong_equation"),
        ("<<>> #### 7", "wrong_equation", "wrong_equation"),
        ("#### 7" + " " * LONGEST_SAMPLE, "too_long", "too_long"),
        ("\0#### 7", "kept", "no_answer"),
        ("\ud800 #### 7", "kept", "kept"),
    ],
)
def test_what_becomes_of_a_sample(sample: str, fate: str, reference: str) -> None:
    assert select_paths([sample], "7").fates == (fate,)
    assert select_paths([sample], "7", strict_reference=True).fates == (reference,)


@pytest.mark.parametrize("strict_reference", [False, True])
def test_the_gold_answer(strict_reference: bool) -> None:
    def kept(sample: str, gold: str) -> bool:
        return bool(select_paths([sample], gold, strict_reference=strict_reference).kept)

    assert kept("#### 1000", "1,000")
    assert kept("#### 1,000", "<<10*100=1000>>\n#### 1,000")
    assert not kept("#### 10", "<<10*100=1000>>\n#### 1,000")
    with pytest.raises(UserError, match="rejection sampling: the answer ''"):
        kept("#### 7", "")


def test_the_reference_needs_a_number() -> None:
    assert select_paths([r"#### \frac12"], r"\frac{1}{2}").kept == (0,)
    with pytest.raises(UserError, match=r"the answer 'x\+1' is no number; correct the column `answer`"):
        select_paths(["#### 7"], "x+1", strict_reference=True)


def _sample(text: str, equation: str) -> str:
    return f"{text}<<{equation}>>#### 7"


def test_collisions_by_hand() -> None:
    """Paths A (7=7) and B (1+6=7); what replaces A must be farther from B than A is, and B counts as it is then."""
    a, b = _sample("", "7=7"), _sample("xxxx", "1+6=7")  # distance 4 + 2, from "" and "1+6=7" against "7=7"
    nearer, as_far, farther = _sample("xxxxx", "7=7"), _sample("yyyy", "7=7"), _sample("yyyyy", "7=7")
    # to B: A 4+2, nearer 1+2, as_far 4+2, farther 5+2
    assert select_paths([a, b, nearer], "7").kept == (0, 1)
    assert select_paths([a, b, as_far], "7").kept == (0, 1)
    assert select_paths([a, b, farther], "7").kept == (2, 1)
    assert select_paths([a, farther, b], "7").kept == (0, 2)  # no other path yet: the first stays
    assert select_paths([a, b, farther, a], "7").fates == ("duplicate", "kept", "kept", "duplicate")


def _distance(a: str, b: str) -> int:
    """Levenshtein's distance by its recursion, row by row (Wagner and Fischer 1974)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


WORDS = st.lists(st.sampled_from(["so", "we add", "then", "é", "apples"]), max_size=4).map(" ".join)
EQUATIONS = st.lists(st.sampled_from(["1+6=7", "2+5=7", "3 + 4=7", "3+4=7"]), max_size=2)


@given(st.lists(st.tuples(WORDS, EQUATIONS), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_state_follows_the_rule(parts: list[tuple[str, list[str]]]) -> None:
    samples = [words + "".join(f"<<{e}>>" for e in found) + "#### 7" for words, found in parts]
    slots: list[tuple[list[str], int]] = []
    for i, (_, found) in enumerate(parts):
        key = [equation.replace(" ", "") for equation in found]
        same = [n for n, (other, _) in enumerate(slots) if other == key]
        if not same:
            slots.append((key, i))
            continue
        rest = [samples[j] for n, (_, j) in enumerate(slots) if n != same[0]]
        old, new = (sum(_distance(samples[j], other) for other in rest) for j in (slots[same[0]][1], i))
        if new > old:
            slots[same[0]] = (key, i)
    for strict in (False, True):
        selection = select_paths(samples, "7", strict_reference=strict)
        assert selection.kept == tuple(i for _, i in slots)
        assert [i for i, fate in enumerate(selection.fates) if fate == "kept"] == sorted(selection.kept)
        assert sum(selection.counts.values()) == len(samples)


def test_a_hundred_samples_take_bounded_time() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("abc ", k=2000)) + f"<<7+{i % 20}-{i % 20}=7>>#### 7" for i in range(100)]
    hostile = [
        "<<" * 9000 + "#### 7",
        "<<9**9**9=7>>#### 7",
        "#### " + "9" * 19_000,
        "<<" + "(" * 19_000 + "=7>>#### 7",
    ]
    begun = time.perf_counter()
    selection = select_paths(texts + hostile, "7")
    assert time.perf_counter() - begun < 5
    assert selection.fates[100:] == ("kept", "wrong_equation", "wrong_answer", "wrong_equation")
    assert len(selection.kept) == 21


def test_no_sample_at_all() -> None:
    selection = select_paths([], "7")
    assert (selection.kept, selection.fates, selection.counts) == ((), (), {})


def test_the_best_by_score() -> None:
    texts, scores = ["a", "b", " b\n", "c", "", "d"], [0.1, 0.7, 0.9, 0.7, 5.0, -1.0]
    assert select_best(texts, scores, n=2).kept == (2, 3)  # "b" has the higher of its two scores
    assert select_best(texts, scores, n=2).fates == ("not_best", "duplicate", "kept", "kept", "empty", "not_best")
    assert select_best(texts, scores, threshold=0.1).kept == (2, 3, 0)
    assert select_best(texts, scores, n=2, threshold=0.8).fates == (
        *("low_score", "duplicate", "kept", "low_score", "empty", "low_score"),
    )
    assert select_best(texts, scores, n=99).kept == (2, 3, 0, 5)
    assert select_best(texts, scores, threshold=9).kept == ()
    assert select_best([], [], n=1).fates == ()


def test_ties_go_to_the_first() -> None:
    assert select_best(["a", "b", "c"], [1.0, 1.0, 1.0], n=2).kept == (0, 1)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([1.0, 2.0], {}, "give n, a threshold or both"),
        ([1.0, 2.0], {"n": 0}, "n=0 keeps nothing"),
        ([1.0, 2.0], {"threshold": float("nan")}, "threshold=nan"),
        ([1.0], {"n": 1}, "1 scores for 2 texts"),
        ([1.0, float("nan")], {"n": 1}, "the score of response 1 is nan"),
        ([float("inf"), 1.0], {"n": 1}, "the score of response 0 is inf"),
    ],
)
def test_errors_of_selection_by_score(scores: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_best(["a", "b"], scores, **options)  # pyright: ignore[reportArgumentType]


def test_solutions_of_four_models(shared: Path) -> None:
    """5,276 solutions of GPT-3-era models to GSM8K's test questions, pooled over the models.

    The counts with `strict_reference` are those of the authors' own code on the same solutions with "####" for "A:".
    """
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    begun = time.perf_counter()
    for line in (shared / "data/gsm8k/example_model_solutions.jsonl").read_text().splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        solutions = [value for value in row.values() if isinstance(value, dict)]
        for strict, total in counts.items():
            texts = [s["solution"].replace("\nA: ", "\n#### ") if strict else s["solution"] for s in solutions]
            selection = select_paths(texts, gold, strict_reference=strict)
            total.update(selection.counts)
            for solution, fate in zip(solutions, selection.fates, strict=True):
                assert solution["is_correct"] == (fate not in ("no_answer", "wrong_answer"))
    assert time.perf_counter() - begun < 60
    common = {"wrong_answer": 3264, "no_answer": 11, "wrong_equation": 3}
    assert counts[False] == common | {"duplicate": 610, "kept": 1388}
    assert counts[True] == common | {"duplicate": 541, "kept": 1457}
