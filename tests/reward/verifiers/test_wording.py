"""Numbers in words: what is read, what is only a part of an answer, and what other scripts and separators say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from reward.verifiers.math_answers import Math, numbers
from reward.verifiers.wording import in_symbols, is_part


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("negative 5", "-5"),
        ("it is minus $5", "it is -$5"),
        ("10 minus 3", "10 - 3"),
        ("10 apples minus 3 apples", "10 apples minus 3 apples"),
        ("2 times 3 plus x", "2 * 3 + x"),
        ("3 times a day", "3 times a day"),
        ("2 divided by 3", "2 / 3"),
        ("2 multiplied by 3", "2 * 3"),
        ("3 x 4", "3 * 4"),
        ("3 squared", "3^2"),
        ("25 squared meters", "25 squared meters"),
        ("2 cubed", "2^3"),
        ("5 to the power of 2", "5^2"),
        ("3 point 5", "3.5"),
        ("50 per cent", "50%"),
        ("5 and a half", "5 1/2"),
        ("5 and 3 quarters", "5 3/4"),
        ("2 thirds of it", "2/3 of it"),
        ("1 half", "1/2"),
        ("3 halves", "3/2"),
        ("a 1 third share", "a 1 third share"),
        ("5 million", "5000000"),
        ("2.5 million", "2500000"),
        ("1,200 thousand", "1200000"),
        ("3 hundred thousand", "300000"),
        ("3 lakh", "300000"),
        ("2 crore", "20000000"),
        ("0.0001 thousand", "0.0001 thousand"),
        ("seven", "7"),
        ("Twenty-one.", "21"),
        ("negative seven", "-7"),
        ("one third", "1/3"),
        ("a half", "1/2"),
        ("three million", "3000000"),
        ("infinity", "\\infty"),
        ("one of them", "one of them"),
        ("not 3 but 4", "4"),
        ("1/3 (0.333)", "1/3"),
        ("0.5 (50%)", "0.5"),
        ("3 (4)", "3 (4)"),
        ("1/3 (0.35)", "1/3 (0.35)"),
        ("1/0 (1/0)", "1/0 (1/0)"),
        ("9" * 9000 + " million", "9" * 9000 + " million"),
        ("1" + " million" * 900, "1" + "0" * 18 + " million" * 897),
    ],
)
def test_the_table_in_symbols(text: str, symbols: str) -> None:
    assert in_symbols(text) == symbols


@pytest.mark.parametrize(
    "text",
    [
        "either [3] or 4",
        "either 3 or [4]",
        "between [3] and 4",
        "between 3 and [4]",
        "[3] to 4",
        "3 to [4]",
        "[3], or maybe 4",
        "3, or maybe [4]",
        "[3] apples or 4 apples",
        "3 apples or [4] apples",
        "x = 3 or x = [-3]",
        "[3] or four",
        "not [3]",
        "isn't [3]",
        "is not equal to [3]",
        "more than [3]",
        "[2] hours 30 minutes",
        "2 hours and [30] minutes",
        "[5] feet 3 inches",
        "[3] remainder 2",
        "[5] choose two",
        "[3] factorial",
        "[18] dollars and 50 cents",
        "[3] apples, 4 pears",
        "10 apples minus [3]",
        "[5] to the 2nd power",
        "[5] million",
    ],
)
def test_a_part_of_an_answer(text: str) -> None:
    begin, end = text.index("["), text.index("]") - 1
    assert is_part(text.replace("[", "").replace("]", ""), begin, end)


@pytest.mark.parametrize(
    "text",
    [
        "It is [5], which is 2 more than 3.",
        "[12], not 13",
        "[5] times a week",
        "[7] (since 3 + 4 = 7)",
        "Add 3 to 2 to get [5].",
        "[1/2], or 0.5",
        "[1/3] or approximately 0.33",
        "the difference between 8 and 3 is [5]",
        "3 apples and 4 pears, so [7]",
        "He has [5] apples because 2 + 3 = 5",
    ],
)
def test_a_whole_answer(text: str) -> None:
    begin, end = text.index("["), text.index("]") - 1
    assert not is_part(text.replace("[", "").replace("]", ""), begin, end)


RIGHT = [  # response, answer
    ("Ответ: 42", "42"),
    ("Ответ: $42$", "42"),
    ("Всего 7 яблок", "7"),
    ("У Маши было 3 яблока, стало 7.", "7"),
    ("Η απάντηση είναι 42.", "42"),
    ("คำตอบคือ 42", "42"),
    ("คำตอบคือ๔๒บาท", "42"),
    ("جواب: 42", "42"),
    ("الإجابة هي ١٬٢٣٤٫٥", "1234.5"),
    ("उत्तर ४२ है", "42"),
    ("उत्तर ४२ है।", "42"),
    ("\\boxed{5 яблок}", "5"),
    ("42", "٤٢"),
    ("The answer is minus $\\frac12$", "-1/2"),
    ("The answer is 3 quarters.", "3/4"),
    ("\\boxed{3 squared}", "9"),
    ("The answer is 2 times 3.", "6"),
    ("The answer is 5 times", "5"),
    ("It costs $2.5 million.", "2,500,000"),
    ("\\boxed{5 \\text{ million}}", "5000000"),
    ("The answer is 2 hours 30 minutes.", "2 hours 30 minutes"),
    ("\\boxed{3 \\text{ or } -3}", "3, -3"),
    ("\\boxed{\\text{seven}}", "7"),
    ("The answer is one of the following: 5", "5"),
    ("It is 0x10", "16"),
    ("\\boxed{101_{2}}", "101_2"),
    ("5", "101_2"),
    ("\\boxed{5\\text{ cm}^2}", "5"),
    ("\\boxed{5\\,\\mathrm{cm}^{2}}", "5"),
    ("The answer is 5 m/s.", "5"),
    ("\\boxed{5 m/s^2}", "5"),
    ("\\boxed{90°}", "90"),
    ("90", "90^{\\circ}"),
    ("The answer is π.", "\\pi"),
    ("The answer is x².", "x^2"),
    ("The answer is ∞.", "\\infty"),
    ("The answer is negative infinity", "-\\infty"),
    ("The answer is 1'234.", "1234"),
    ("1'234'567.5", "1234567.5"),
    ("Die Antwort ist 1.234,56 Euro.", "1234.56"),
    ("La réponse est 1 234,5.", "1234.5"),
    ("1.000.000", "1000000"),
    ("The answer is 50 per cent of all", "1/2"),
    ("The answer is ¥500", "500"),
    ("The answer is ₹500", "500"),
    ("\\boxed{0.1\\overline{6}}", "1/6"),
    ("\\boxed{1.\\overline{09}}", "12/11"),
    ("84/12 = 7 dozen eggs", "7"),
    ("The answer is 11, i.e. 5 more than twice 3.", "11"),
    ("The answer is 5, 2 more than 3.", "5"),
    ("#### 3, 4", "3, 4"),
]
WRONG = [
    ("Ответ: 42", "2"),
    ("The answer is negative 5.", "5"),
    ("It is minus 5", "5"),
    ("The answer is either 3 or 4.", "3"),
    ("The answer is 3; 4.", "3"),
    ("#### 3, 4", "3"),
    ("#### 3 to 4", "4"),
    ("\\boxed{between 3 and 4}", "3"),
    ("<answer>not 3</answer>", "3"),
    ("The answer is not 3 but 4.", "3"),
    ("The answer is 3 quarters.", "3"),
    ("\\boxed{3 squared}", "3"),
    ("The answer is 2 times 3.", "2"),
    ("The answer is 5 and a half.", "5"),
    ("The answer is $5$ million", "5"),
    ("\\boxed{5 \\text{ million}}", "5"),
    ("The answer is 3 lakh.", "3"),
    ("\\boxed{2\\text{ hours } 30\\text{ minutes}}", "2"),
    ("\\boxed{2\\text{ hours } 30\\text{ minutes}}", "30"),
    ("\\boxed{0x10}", "0"),
    ("101", "101_2"),
    ("\\boxed{a_{12}}", "10"),
    ("1.234", "1234"),
    ("45", "90°"),
    ("\\boxed{0.\\overline{3}}", "0.3"),
    ("The answer is infinity.", "-\\infty"),
    ("The answer is seven.", "8"),
]


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [*((response, answer, 1) for response, answer in RIGHT), *((response, answer, 0) for response, answer in WRONG)],
)
def test_right_and_wrong_answers(response: str, answer: str, score: float) -> None:
    assert Math().judge(response, answer).score == score


def test_numbers_in_another_base() -> None:
    """2·16 + 10, 1·4 + 0·2 + 1, −(2·8 + 7); 2 is no digit of base 2, and there is no base 1."""
    assert [numbers(text) for text in ("0x2A", "101_2", "-27_{8}")] == [(42,), (5,), (-23,)]
    assert [numbers(text) for text in ("102_2", "11_1", "1_{99}", "x_2")] == [(), (), (), ()]


FORMS = ["Ответ: {}", "Всего {} яблок.", "Η απάντηση είναι {}.", "คำตอบคือ {} บาท", "الإجابة هي {}", "उत्तर {} है"]


@pytest.mark.parametrize("form", FORMS)
def test_gold_answers_in_other_scripts(form: str, shared: Path) -> None:
    lines = (shared / "data/gsm8k/test.jsonl").read_text("utf-8").splitlines()[:300]
    golds = [json.loads(line)["answer"].rpartition("#### ")[2] for line in lines]
    others = random.Random(0).sample(golds, len(golds))
    assert all(Math().judge(form.format(gold), gold).score == 1 for gold in golds)
    assert not any(Math().judge(form.format(g), o).score for g, o in zip(golds, others, strict=True) if g != o)
