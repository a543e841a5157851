"""Where the answer of mathematics stands: the rules of the documentation, the kinds of the peers' tests, GSM8K."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from align.errors import UserError
from reward.verifiers.answers import ExactMatch, JsonSchema, MultipleChoice
from reward.verifiers.final_answer import is_mathematical, marked_answer, marked_readings, unmarked_readings
from reward.verifiers.math_answers import Math
from reward.verifiers.rules import Regex

README = Path(__file__).resolve().parents[3] / "reward" / "README.md"
TABLE = re.findall(r"^\| ([^|]+) \| `([^`\n]+)` \| `([^`\n]+)` \| ([01]) \|$", README.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("response", "answer", "score"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_rules_of_the_documentation(response: str, answer: str, score: str) -> None:
    assert Math().judge(response, answer).score == float(score)


def test_the_table_was_read() -> None:
    assert len(TABLE) == 35


RIGHT = [  # response, answer
    ("The answer is 5 (see above).", "5"),
    ("**Answer:** 5", "5"),
    ("**Final Answer**\n\n\\[\n5\n\\]", "5"),
    ("## Final Answer\n\n5 apples", "5"),
    ("The answer is approximately $5$.", "5"),
    ("So the final answer is therefore 5 apples.", "5"),
    ("The answer is 3 + 4 = 7.", "7"),
    ("The answer is $5 - $3 = $2.", "2"),
    ("The answer is \\frac{1}{2} of the cake.", "1/2"),
    ("The answer is x = 5, as required.", "5"),
    ("Answer: 5 and 3", "3, 5"),
    ("The solutions are $3$ and $5$.", "3, 5"),
    ("The largest value of $f(x)$ in the domain, the final answer, is 19. <|im_start|>user", "$19$"),
    ("<answer>about 42</answer> as I said", "42"),
    ("<answer>The answer is \\boxed{42}.</answer>", "42"),
    ("is 3. #### 18", "18"),
    ("The answer is 72.\n#### Step 3: check it", "72"),
    ("$\\boxed{20}$ percent", "0.2"),
    ("\\boxed 5", "5"),
    ("\\fbox{5}", "5"),
    ("$\\boxed{14 {, }916}$", "14916"),
    ("$$\\boxed{20}$$ \\boxed{143}", "143"),
    ("$\\boxed{(3, 3)} \\text{ for part (a) and } \\boxed{(1, 1)}$", "(3, 3), (1, 1)"),
    ("\\boxed{\\text{(C)}}", "\\text{C}"),
    ("odd", "odd"),
    ("$\\text{odd}$", "odd"),
    ("The answer is Evelyn, who was faster.", "$\\text{Evelyn}$"),
    ("\\boxed{\\begin{pmatrix} 0 & 3 \\\\ 0 & -1 \\end{pmatrix}}", "\\begin{pmatrix}0&3\\\\0&-1\\end{pmatrix}"),
    ("$\\boxed{\\{-12, -11, -10\\}}$", "$-12;-11;-10$"),
    ("\\boxed{(4, 0, 6), (0, -2, 6)}", "$(0;-2;6),(4;0;6)$"),
    ("$21,16,11$", "$21,16$ or $11$"),
    ("\\boxed{(7,11),\\ (11,7)}", "$(11,7)or(7,11)$"),
    ("1 000", "1000"),
    ("1000,99", "1000.99"),
    ("so the number is 10 which is 1,000.99m²", "1000.99"),
    ("$ 9 $", "9"),
    (".4", "0.4"),
    ("Reasoning that the prompt has begun </think> \\boxed{\\frac{63}{400}}", "63/400"),
    ("It is 3/4.", "3/4"),
    ("It is 3/4.", "0.75"),
    ("It is 3 / 4.", "3/4"),
    ("So x = 2/3 and y = 1/2.", "1/2"),
    ("the result is 2^3", "8"),
    ("the result is 2**3", "8"),
    ("the result is 2²", "4"),
    ("It is 10^-3 now", "0.001"),
    ("I get 2*3", "6"),
    ("I get 2 × 3", "6"),
    ("I get 2 × 3 = 6 here", "6"),
    ("pay 3*$4 = $12", "12"),
    ("It is 5 - 2.", "3"),
    ("It is (2+3)*4 for all", "20"),
    ("It is 2\\sqrt3 then", "2\\sqrt{3}"),
    ("It is 2√3", "2\\sqrt{3}"),
    ("It is log_2(8) for this", "3"),
    ("It is 2π.", "2\\pi"),
    ("It is 2pi", "2\\pi"),
    ("The total is 1 000", "1000"),
    ("The total is 1,000,000 in all", "1000000"),
    ("It is 100 000/2 then", "50000"),
    ("It is 5 + 2i", "5+2i"),
    ("It is 1 1/2 cups", "1.5"),
    ("It is (3, 4).", "(3,4)"),
    ("see (3 apples, 4 pears)", "4"),
    ("It is 5, 6", "6"),
    ("Each costs 3 dollars - 5 in all", "5"),
    ("so **5** **6** apples", "6"),
    ("It is 10 % off", "10"),
    ("It is 2m²", "2"),
    ("It is 10 m/s", "10"),
    ("Final answer: we get 3/4 here", "3/4"),
    ("答案是12。", "12"),
    ("答案是12", "12"),
    ("结果为 12 。", "12"),
    ("所以一共有12个苹果", "12"),
    ("共12个苹果和3/4个梨", "3/4"),
    ("答えは12です。", "12"),
    ("답은 12입니다.", "12"),
    ("#### 12个苹果", "12"),
    ("The answer is 12，不是13。", "12"),
    ("#### 1e3", "1000"),
    ("Total: 1e3", "1000"),
    ("It is 1.5e-3.", "0.0015"),
    ("½", "0.5"),
    ("#### -½", "-0.5"),
    ("\\boxed{½^2}", "1/4"),
    ("It is 3½ cups", "3.5"),
    ("#### 1 1/2", "1.5"),
    ("#### sqrt(2)", "\\sqrt{2}"),
]
WRONG = [
    ("<think>I am not done: 42", "42"),
    ("<think>\\boxed{42}</think> Here is another one: \\boxed{43}.", "42"),
    ("<answer>42", "42"),
    ("\\boxed{1} or \\boxed{2", "2"),
    ("The answer is 3 million", "3"),
    ("The answer is 5, which is 2 more than 3.", "3"),
    ("B2 is right", "2"),
    ("x2", "2"),
    ("12", "2"),
    ("1.2", "2"),
    ("\\boxed{abc}", "cba"),
    ("\\boxed{5}", "odd"),
    ("The answer is even.", "odd"),
    ("\\boxed{1112122_3}", "1112112_3"),
    ("\\boxed{(0, 0)}", "(\\tfrac{27}{8},\\tfrac{15}{8})"),
    ("$-[0,1)$", "$1$"),
    ("\\boxed{\\begin{pmatrix}2\\\\1\\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("", "1"),
    ("It is 3/4.", "4"),
    ("So x = 2/3 and y = 1/2.", "2"),
    ("the result is 2^3", "3"),
    ("the result is 2²", "2"),
    ("I get 2*3", "3"),
    ("The total is 1 000", "0"),
    ("It is 1'000", "0"),
    ("It is 5 + 2i", "2"),
    ("It is 5 ± 2", "2"),
    ("It is x+3 then", "3"),
    ("It is 2√3", "3"),
    ("It is log_2(8) for this", "8"),
    ("He said f(2)", "2"),
    ("It is (3, 4).", "4"),
    ("It is 1 1/2 cups", "1/2"),
    ("It is from 3–5", "5"),
    ("It is 3:4", "4"),
    ("It is 10:30", "30"),
    ("It is 3.14.15", "29.15"),
    ("It is 2024-01-15", "2008"),
    ("It is 2024-01-15", "15"),
    ("It is 01/15/2024", "2024"),
    ("It is No.5", "0.5"),
    ("答案是B2。", "2"),
    ("答案是3/4。", "4"),
    ("Total: 1e3", "1"),
    ("It is 1½.", "1"),
    ("12e", "12"),
    ("2024年1月15日", "15"),
    ("日期是2024年1月15日。", "2024"),
    ("\\boxed{\\frac{1}{2} xy}", "1/2"),
]


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [*((response, answer, 1) for response, answer in RIGHT), *((response, answer, 0) for response, answer in WRONG)],
)
def test_right_and_wrong_answers(response: str, answer: str, score: float) -> None:
    assert Math().judge(response, answer).score == score


FORMS = [
    "The answer is {}, which is more than before.",
    "The answer is {} (see above).",
    "Final Answer: The total is {}.",
    "\\boxed{{{}}}",
    "So she has ${} left.",
    "<think>Is it \\boxed{{12345}}?</think>It is {}.",
]


@pytest.mark.parametrize("form", FORMS)
def test_gold_answers_in_other_words(form: str, shared: Path) -> None:
    lines = (shared / "data/gsm8k/test.jsonl").read_text("utf-8").splitlines()[:300]
    golds = [json.loads(line)["answer"].rpartition("#### ")[2] for line in lines]
    others = random.Random(0).sample(golds, len(golds))
    assert all(Math().judge(form.format(gold), gold).score == 1 for gold in golds)
    assert not any(Math().judge(form.format(g), o).score for g, o in zip(golds, others, strict=True) if g != o)


def test_thinking_is_kept_if_the_setting_says_so() -> None:
    assert Math(thinking_tags=()).judge("<think>\\boxed{42}</think> other text", "42").score == 1
    assert Regex(pattern="<think>").judge("<think>a</think>b").score == 1
    assert Regex(pattern="a", thinking_tags=("think",)).judge("<think>a</think>b").score == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("1</answer>2</answer>", ""),  # the last closes nothing
        ("<answer>1<answer>2</answer>", "2"),
        ("<answer>1</answer><answer>2", ""),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"),
        (r"\boxed{1}. Then \boxed{2}", "2"),
        (r"\boxed{5}\%", "5%"),
        (r"\boxed{5} percent", "5%"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("The answer is 7. I hope the answer is right.", "7"),
        ("The answer is 7. No, the answer is 8.", "8"),
        ("#### 7\nThe answer is clear.", "7"),
        ("#### 7\nThe answer is 8.", "8"),
        ("The answer is 7\n#### 8", "8"),
        ("##### 7", ""),
        ("Answer:\n7", "7"),
        ("A: 7 and that is all", "7"),
    ],
)
def test_which_mark_counts(text: str, answer: str) -> None:
    assert marked_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("", ()),
        ("7", ("7",)),
        ("so 7 of 8", ("so 7 of 8", "8")),
        ("so $x=7$ of them", ("so $x=7$ of them", "x=7")),
        ("so $7$, then 8 left", ("so $7$, then 8 left", "8")),
        ("first 8 and then $7$", ("first 8 and then $7$", "7")),
        ("no number", ("no number",)),
        ("w " * 600 + "7", ("7",)),  # too long to be an answer as a whole
    ],
)
def test_readings_without_a_mark(text: str, readings: tuple[str, ...]) -> None:
    assert unmarked_readings(text) == readings


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", True), ("x", True), (r"\pi", True), ("a+b", True), ("word", False), ("and so", False), ("the+cat", False)],
)
def test_there_is_something_to_calculate(text: str, found: bool) -> None:
    assert is_mathematical(text) is found


def test_no_mark_and_a_mark_that_was_cut_off_differ() -> None:
    assert marked_readings("it is 7") is None
    assert marked_readings("it is \\boxed{7") == ()
    assert marked_answer("it is \\boxed{7") == ""
    assert unmarked_readings("it is 7 of 8") == ("it is 7 of 8", "8")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("<answer>B</answer>", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        ("The correct option is B.", "B"),
        ("The answer is C. No: the answer is (B), as C is wrong.", "B"),
        ("<think>The answer is C</think>The answer is B", "B"),
        ("<think>The answer is B</think>It is open.", ""),
        ("The answer is B2", ""),
        ("The answer is A bird", ""),
        ("The answer is A because it is", "A"),
        ("<think>B", ""),
    ],
)
def test_choices(response: str, letter: str) -> None:
    for right in "AB":
        assert MultipleChoice().judge(response, right).score == float(letter == right)


def test_exact_match_and_json_in_tags_and_after_thinking() -> None:
    assert ExactMatch().judge("<think>Rome?</think> Paris", "Paris").score == 1
    assert ExactMatch().judge("I say <answer>Rome</answer><answer>Paris</answer>", "Paris").score == 1
    assert ExactMatch().judge("<think>Paris</think> Rome", "Paris").score == 0
    schema = JsonSchema(schema={"type": "object"})
    assert schema.score(["p"], [["<think>[]</think>{}", "<answer>{}</answer>", "<think>{}</think>[]"]]) == [[1, 1, 0]]
    with pytest.raises(UserError, match="answer"):
        JsonSchema().score(["p"], [["{}"]])


@pytest.mark.parametrize(
    "piece",
    [
        "#### ",
        "answer ",
        "<think>",
        "</think><think>",
        "<answer>",
        "$ ",
        "\\[",
        "\\boxed{1} and ",
        "*",
        "1+",
        "(1,",
        "1 000 ",
        "答1",
        "1 million ",
        "1 apples or ",
        "not 1 but ",
        "1/1 (1) ",
        "٤ ",
        "я",
    ],
)
def test_a_megabyte_is_read_in_linear_time(piece: str) -> None:
    begin = time.process_time()
    assert Math().judge(piece * (1_000_000 // len(piece)), "-17.25").score == 0
    assert time.process_time() - begin < 8
