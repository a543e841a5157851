"""The tag count: by hand, beside open-r1's rule, and on responses made to be counted wrongly."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.scoring.from_config import make_scorer
from reward import TagCount


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("<think>\na\n</think>\n<answer>\n7\n</answer>", 1),
        ("<think>a</think><answer>7</answer>", 1),
        ("", 0),
        ("7", 0),
        ("<think>a</think>7", 0.5),
        ("<think>a", 0.25),
        ("a</think><answer>7</answer>", 0.75),  # the prompt has opened it
        ("<think>a</think><answer>7", 0.75),
        ("<think>a</think><think>b</think><answer>7</answer>", 0.5),  # twice is not once
        ("<think><think>a</think></think><answer>7</answer>", 0.5),
        ("<think>a</think><answer>7</answer>" * 2, 0),
        ("<think>" * 100_000, 0),
        ("</answer><answer></think><think>", 1),  # the order does not count
        ("<THINK>a</THINK><Answer>7</Answer>", 0),  # letter case does
        ("<think >a</think ><answer>7</answer>", 0.5),
        ("<think/><answer/>", 0),
        ("< think>a</ think>", 0),
        ("&lt;think&gt;a&lt;/think&gt;", 0),
        ("＜think＞a＜/think＞", 0),
        ("<thinking>a</thinking><answers>7</answers>", 0),
        ("```\n<think></think>\n```<answer>7</answer>", 1),
        ("<<think>>", 0.25),
        ("<think>\x00</think>\ud800<answer></answer>", 1),
    ],
)
def test_by_hand(response: str, score: float) -> None:
    assert TagCount().score(["p"], [[response]]) == [[score]]


def test_open_r1_where_the_tags_have_lines_of_their_own() -> None:
    """Its rule: a quarter for each of four marks, with their line breaks, that is there exactly once."""
    marks = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")
    for present in range(16):
        for times in (1, 2):
            text = "".join(mark * times for i, mark in enumerate(marks) if present >> i & 1)
            expected = sum(text.count(mark) == 1 for mark in marks) / 4
            assert TagCount().judge(text).score == expected == (bin(present).count("1") / 4 if times == 1 else 0)


def test_other_tags() -> None:
    scorer = TagCount(tags=("plan", "seed:think", "final.answer"))
    assert scorer.judge("<plan></plan><seed:think></seed:think><final.answer>").score == pytest.approx(5 / 6)
    assert scorer.judge("<plan></plan><final_answer>").score == pytest.approx(2 / 6)
    assert TagCount(tags=("a",)).judge("<a>").reason == "not exactly once: </a>"


@pytest.mark.parametrize("tags", [[], ["think", "think"], ["<think>"], [""], ["a b"], ["/think"], ["1"]])
def test_names_of_tags_are_checked(tags: list[str]) -> None:
    with pytest.raises(UserError, match="must be different names of tags: "):
        make_scorer({"scorer": "tag_count", "tags": tags})


@pytest.mark.parametrize("tags", ["think", None, [1]])
def test_tags_are_a_list(tags: Any) -> None:
    with pytest.raises(UserError, match="tags must be a list of texts"):
        make_scorer({"scorer": "tag_count", "tags": tags})
