from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import LatexExtractionConfig, parse, verify

from align.errors import UserError
from reward.verifiers import bounded
from reward.verifiers.final_answer import marked_answer
from reward.verifiers.math_answers import Math, answer_key, compare, numbers, too_hard

math = Math()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and done", r"\frac{1}{2}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{1", ""),
        ("2 + 2\n#### 4\n", "4"),
        ("#### 3\nmore\n#### 4", "4"),
        ("The answer is 12 apples.\nBye", "12"),
        ("Answer: B", "B"),
        ("A: 18", "18"),
        (r"The answer is \boxed{7} #### 8", "8"),
        ("7 of them", ""),
    ],
)
def test_the_marked_answer(text: str, answer: str) -> None:
    assert marked_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234.50", (Fraction(2469, 2),)),
        ("-7", (Fraction(-7),)),
        ("+.5", (Fraction(1, 2),)),
        ("12%", (Fraction(12), Fraction(3, 25))),
        ("3/4", (Fraction(3, 4),)),
        (r"-\dfrac{3}{4}", (Fraction(-3, 4),)),
        (r"\frac34", (Fraction(3, 4),)),
        ("18 dollars", (Fraction(18),)),
        ("3 million", ()),
        ("2 pi", ()),
        ("1/0", ()),
        ("5x", ()),
        ("1,23", ()),
        ("9" * 200, ()),
    ],
)
def test_plain_numbers(text: str, values: tuple[Fraction, ...]) -> None:
    assert numbers(text) == values


@given(top=st.integers(-(10**20), 10**20), bottom=st.integers(1, 10**6))
@settings(max_examples=50)
def test_fractions_and_thousands_are_exact(top: int, bottom: int) -> None:
    assert numbers(f"{top}/{bottom}") == (Fraction(top, bottom),)
    assert numbers(f"{top:,}") == (Fraction(top),)


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [
        ("We get 3 * 6 = 18.", "... #### 18", 1),
        ("The answer is **18** dollars.", "18", 1),
        ("The answer is $1,800.00", "1800", 1),
        ("The answer is 18.", "19", 0),
        (r"\boxed{12\%}", "0.12", 1),
        (r"\boxed{0.333333}", "1/3", 1),
        (r"\boxed{0.33}", "1/3", 0),
        (r"\boxed{1234567.5}", "1234568", 0),
        (r"\boxed{0.00000001}", "0.00000002", 0),
        (r"\boxed{5\text{ cm}}", "5", 1),
        (r"\boxed{\text{Tuesday}}", "Tuesday", 1),
        (r"\boxed{Monday}", "Tuesday", 0),
        ("", "1", 0),
        ("I do not know", "1", 0),
        ("(x+1)^2", "x^2+2x+1", 1),
    ],
)
def test_right_and_wrong(response: str, answer: str, score: float) -> None:
    assert math.score(["p"], [[response]], answer=[answer]) == [[score]]


@pytest.mark.parametrize(
    ("predicted", "gold"),
    [
        (r"(x-1)(x+1)", r"x^2-1"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"2^{10}", "1024"),
        (r"\{1,2\}", r"\{2,1\}"),
        (r"[1,2)\cup(3,4]", r"(3,4] \cup [1,2)"),
        (r"\frac{\pi}{2}", r"\pi/2"),
        (r"\sin^2 x+\cos^2 x", "1"),
        ("(1,2)", "(2,1)"),
        ("x^2", "x^3"),
        (r"\sqrt{2}", "1.5"),
        ("x=5", "5"),
    ],
)
def test_symbolic_equality_is_that_of_math_verify(predicted: str, gold: str) -> None:
    latex = [LatexExtractionConfig(boxed_match_priority=0)]
    read = [parse(f"\\boxed{{{text}}}", latex, fallback_mode="no_fallback") for text in (gold, predicted)]
    assert read[0]
    assert compare(predicted, gold).score == float(verify(*read))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("-1 1/2", (Fraction(-3, 2),)),
        ("1 1/2", (Fraction(3, 2),)),
        ("1 000.5", (Fraction(2001, 2),)),
        ("1e3", (Fraction(1000),)),
        ("2.5e-1", (Fraction(1, 4),)),
        ("12 percent", (Fraction(12), Fraction(3, 25))),
        ("-50%", (Fraction(-50), Fraction(-1, 2))),
        ("3/4%", (Fraction(3, 4), Fraction(3, 400))),
        ("6/1,000", (Fraction(3, 500),)),
        ("-6/4", (Fraction(-3, 2),)),
        (r"\tfrac{6}{4}", (Fraction(3, 2),)),
        (r"-\frac12", (Fraction(-1, 2),)),
        ("0", (Fraction(0),)),
        ("-0", (Fraction(0),)),
        ("3 dozen", ()),
        ("1/2/3", ()),
        ("", ()),
        ("1,2", ()),
        ("12,34", ()),
    ],
)
def test_more_plain_numbers(text: str, values: tuple[Fraction, ...]) -> None:
    assert numbers(text) == values


@pytest.mark.parametrize(
    ("predicted", "gold", "score"),
    [
        # At most 10⁻⁶ apart: above 1 absolute, below it relative.
        *(("1000000.000001", "1000000", 1), ("1000000.0000011", "1000000", 0)),
        *(("0.0010000009", "0.001", 1), ("0.0010000011", "0.001", 0), ("-2", "2", 0), ("0.0000001", "0", 0)),
        # A percentage is its number or its hundredth, on both sides.
        *(("12", "12%", 1), ("0.12", "12%", 1), ("12%", "12", 1), ("1.2", "12%", 0), ("0.0012", "12%", 0)),
        # A decimal comma only where the other one has a point.
        *(("1,5", "1.5", 1), ("1.5", "1,5", 1), ("1,5", "5, 1", 1), ("1,5", "15", 0)),
        # The case of words does not count, nor do brackets around a letter.
        *(("Tuesday", "TUESDAY", 1), ("(B)", "B", 1)),
        *(("x", "5", 0), ("word", "5", 0), ("5", "word", 0)),
    ],
)
def test_pairs_of_answers(predicted: str, gold: str, score: float) -> None:
    assert compare(predicted, gold).score == score


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ("(" * 20 + "1" + ")" * 20, "(" * 21 + "1" + ")" * 21, "brackets nested more than 20 deep"),
        ("9" * 40, "9" * 41, "a number of more than 40 digits"),
        ("2^2^2", "2^2^2^2", "a tower of more than 2 powers"),
        ("x^{10000}", "x^{10001}", "an exponent above 10000"),
        ("x^(-10000)", "x^(-10001)", "an exponent above 10000"),
        ("x**10000", "x ** 10001", "an exponent above 10000"),
        ("200!", "201!", "a factorial above 200"),
        ("(200)!", "(201)!", "a factorial above 200"),
        ("1.5", "1.5.2", "a date or version"),
        ("2024-1-15", "2024-01-15", "a date or version"),
        ("x_1", "x__1", "not mathematics"),
        ("1.5x", "a.b", "not mathematics"),
        ("x", "x'", "not mathematics"),
        (r"\sin x", r"\input x", "not mathematics"),
    ],
)
def test_what_goes_to_symbolic_mathematics_at_its_limits(good: str, bad: str, reason: str) -> None:
    assert (too_hard(good), too_hard(bad)) == ("", reason)


def test_votes_are_counted_by_number_or_else_by_text() -> None:
    assert answer_key("$1,000.00 dollars") == answer_key("1000") == (Fraction(1000),)
    assert answer_key("12%") == (Fraction(12), Fraction(3, 25))
    assert answer_key("**x + y**.") == "x + y"


def test_an_answer_that_is_missing_is_an_error_not_a_zero() -> None:
    with pytest.raises(UserError, match="answer"):
        math.score(["p"], [["1"]])
    with pytest.raises(UserError, match="prompt 1"):
        math.score(["p", "q"], [["1"], ["1"]], answer=["1", None])


HOSTILE = [
    '__import__("os").system("touch PLACE")',
    r'\text{__import__("os").system("touch PLACE")}',
    "x.__class__.__mro__[1].__subclasses__()",
    'open("PLACE","w")',
    "9**9**9**9",
    "9^{9^{9^{9}}}",
    "99^{99^{99}}",
    "(((9)^{9})^{9})^{9999999}",
    "9^{99999999999}",
    "(1+1/9)^{999^2}",
    "100000000!",
    "1000" + "!" * 100,
    "(" * 400 + "1" + ")" * 400,
    r"\frac{" * 19 + "1" + "}{2}" * 19,
    r"\sqrt{" * 19 + "2" + "}" * 19,
    "9" * 900,
    r"\sum_{i=1}^{1000000000}\frac{1}{i^3+i}",
    r"\prod_{i=1}^{9999} i^{i}",
    r"\binom{1000000000}{500000000}",
    r"\int_0^1 x^{x} dx",
    r"(x+1)^{999}(y+z+1)^{999}",
    r"\begin{pmatrix}" + "&".join("x" * 90) + r"\end{pmatrix}",
]


@pytest.mark.parametrize("attack", HOSTILE, ids=[text[:24] for text in HOSTILE])
def test_hostile_mathematics_ends_in_time_with_zero(attack: str, tmp_path: Path) -> None:
    place = tmp_path / "written"
    math.judge(r"\boxed{x+1}", "1+x")  # the process runs
    begin = time.monotonic()
    verdict = math.judge(f"\\boxed{{{attack.replace('PLACE', str(place))}}}", "-17.25")
    assert time.monotonic() - begin < 12
    assert verdict.score == 0
    assert verdict.reason
    assert not place.exists()
    assert math.judge(r"\boxed{x+2}", "2+x").score == 1  # and the next is judged


@pytest.mark.parametrize(
    "text",
    ["9" * 10_000_000, "(" * 10_000_000, r"\boxed{" * 140_000, "#### " * 190_000, "answer: " * 120_000, "1," * 490_000],
    ids=["digits", "brackets", "boxes", "hashes", "markers", "numbers"],
)
def test_megabytes_of_text_end_in_time_with_zero(text: str) -> None:
    begin = time.monotonic()
    verdict = math.judge(text, "-17.25")
    assert time.monotonic() - begin < 10
    assert verdict.score == 0
    assert verdict.reason


def test_what_takes_too_long_says_so() -> None:
    assert "seconds" in math.judge(r"\boxed{99^{99^{99}}}", "-17.25").reason


def test_ten_megabytes_are_not_read_at_all() -> None:
    assert "longer" in math.judge("1," * 5_000_000, "1").reason


@pytest.mark.parametrize("code", ['__import__("os").getpid()', "(lambda: 1)()", "print(1)", "exit()"])
def test_the_process_evaluates_nothing_even_past_the_limits(code: str, tmp_path: Path) -> None:
    """Straight to the worker, around the checks before it."""
    place = tmp_path / "written"
    for text in (code, rf"\text{{{code}}}", rf"\mathrm{{{code}}}", f'open("{place}","w")'):
        assert bounded.judge("equal", "-17.25", text).score == 0
    assert not place.exists()


def test_the_reader_of_sympy_knows_nothing_but_digits() -> None:
    """In a process of its own, as the worker leaves SymPy; without its replacement 7*6 would be evaluated."""
    import subprocess
    import sys

    program = (
        "import runpy, sympy\n"
        f"worker = runpy.run_path({str(Path(bounded.__file__).with_name('worker.py'))!r})\n"
        "worker['_equal']()\n"
        "print(sympy.sympify('42'), sympy.sympify('4.5'))\n"
        "try: print(sympy.sympify('7*6'))\n"
        "except Exception: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["42", "4.50000000000000", "refused"]


@given(text=st.text(alphabet="0123456789+-*/^(){}[].,%$\\ fracsqrtboxed#A:", max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_score_and_a_reason(text: str) -> None:
    verdict = math.judge(text, "-17.25")
    assert verdict.score in (0, 1)
    assert verdict.reason


def test_gsm8k_solutions_are_judged_as_their_authors_did(shared: Path) -> None:
    judged = 0
    for line in (shared / "data/gsm8k/example_model_solutions.jsonl").read_text().splitlines():
        row = json.loads(line)
        for solution in (value for value in row.values() if isinstance(value, dict)):
            score = math.judge(solution["solution"], row["ground_truth"]).score
            assert score == float(solution["is_correct"]), solution["solution"]
            judged += 1
    assert judged == 5276
