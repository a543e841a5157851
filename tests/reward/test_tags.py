"""The part of a response that is judged: thoughts are left out, and of answer tags the content alone counts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from align.errors import UserError
from align.scoring.from_config import make_scorer
from align.settings import registry
from reward import ExactMatch, Math
from reward.tags import ReadsTags, in_answer_tags, without_thinking


@pytest.mark.parametrize("tag", ["think", "thinking", "thought", "reasoning", "THINK", "Reasoning"])
def test_every_tag_of_a_thought(tag: str) -> None:
    assert without_thinking(f"a<{tag}>b</{tag}>c") == "ac"
    assert without_thinking(f"a</{tag}>c") == "c"
    assert without_thinking(f"a<{tag}>c") == ""


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", ""),
        ("a", "a"),
        ("a<b", "a<b"),
        ("<think>a</think>b", "b"),
        ("<think></think>b", "b"),
        ("x<think>a</think>b<think>c</think>d", "xbd"),
        ("a <think>b</think>c<THINK>d</THINK> e", "a c e"),
        ("<thinking>a</thinking><reasoning>b</reasoning>c", "c"),
        ("x<think>a<think>b</think>c", "xc"),  # nested: the first end closes
        ("<think><think>a</think>b</think>c", "c"),  # and what is before a second end was a thought
        ("a</think>b</think>c", "c"),
        ("x<think>a</think>b</think>c", "c"),
        ("<think>a", ""),  # cut off
        ("7<think>a", ""),
        ("x<think>a</think>b<think>c", ""),
        ("```\n<think>\n```\n7", ""),  # in code as elsewhere
        ("<think>`</think>`a</think>7", "7"),
        ("<thinker>a</thinker>b", "<thinker>a</thinker>b"),
        ("<think >a", "<think >a"),
        ("< think>a</ think>b", "< think>a</ think>b"),
        ("&lt;think&gt;a", "&lt;think&gt;a"),
    ],
)
def test_thoughts_are_left_out(text: str, rest: str) -> None:
    assert without_thinking(text) == rest
    assert without_thinking(text, ()) == text


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("7", None),
        ("<answer>7</answer>", "7"),
        ("so <answer>\n 7 \n</answer>, or 8", "7"),
        ("<ANSWER>7</Answer>", "7"),
        ("<answer>7</answer><answer>8</answer>", "8"),  # the last counts
        ("<answer>7<answer>8</answer></answer>", "8"),
        ("<answer>7</answer>8</answer>", "7"),
        ("7</answer>8", "7"),  # the prompt has opened it
        ("<answer>7", ""),  # cut off
        ("<answer>7</answer>. No, <answer>8", ""),
        ("<answer></answer>", ""),
        ("```xml\n<answer>7</answer>\n```", "7"),
        ("<answers>7</answers>", None),
        ("<answer >7</answer >", None),
        ("<answer/>7", None),
    ],
)
def test_in_answer_tags(text: str, content: str | None) -> None:
    assert in_answer_tags(text) == content
    assert in_answer_tags(text, ()) is None
    assert ReadsTags().read(text) == (text if content is None else content)


def test_answers_in_thoughts_do_not_count() -> None:
    read = ReadsTags().read
    assert read("<think><answer>7</answer></think>8") == "8"
    assert read("<think><answer>7</think>8</answer>") == "8"
    assert read("<think>7</think><answer>8</answer>9") == "8"
    assert read("<answer><think>7</think>8</answer>") == "8"
    assert read("<answer>7</answer><think>") == ""


def test_tags_have_the_names_of_the_settings() -> None:
    reader = ReadsTags(thinking_tags=("seed:think", "scratch.pad"), answer_tags=("solution", "final"))
    assert reader.read("<Seed:Think>1</seed:think><scratch.pad>2</scratch.pad>a<solution>3</solution>b") == "3"
    assert reader.read("<think>1</think><answer>2</answer>") == "<think>1</think><answer>2</answer>"
    assert reader.read("<scratchxpad>2") == "<scratchxpad>2"  # a dot is a dot
    assert reader.read("<final>3</final>") == "3"
    assert ReadsTags(thinking_tags=(), answer_tags=()).read("<think>1</think><answer>2") == "<think>1</think><answer>2"
    assert Math(answer_tags=("solution",)).judge("<solution>The total is 5, more than 4.</solution> 6", "5").score == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thinking_tags": ["<think>"]}, r"math: thinking_tags: '<think>' is no name of a tag; write \[think\]"),
        ({"answer_tags": [""]}, r"math: answer_tags: '' is no name"),
        ({"answer_tags": ["a b"]}, r"math: answer_tags: 'a b' is no name"),
        ({"answer_tags": ["/answer"]}, r"math: answer_tags: '/answer' is no name"),
        ({"answer_tags": ["Think"]}, r"math: <think> is in thinking_tags and in answer_tags"),
        ({"answer_tags": "answer"}, r"answer_tags must be a list of texts, not 'answer'"),
        ({"thinking_tags": None}, r"thinking_tags must be a list of texts, not null"),
    ],
)
def test_tags_that_are_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_scorer({"scorer": "math", **settings})


VERIFIERS: dict[str, dict[str, Any]] = {
    "exact_match": {},
    "token_f1": {},
    "math": {},
    "multiple_choice": {},
    "json_schema": {"schema": {"const": 7}},
    "ifeval": {},
    "regex": {"pattern": "7", "full": True, "thinking_tags": ["think"], "answer_tags": ["answer"]},
}
FOLLOWED = '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'
"""No comma in the response."""


def test_every_verifier_has_the_settings() -> None:
    scorers: list[Any] = [registry.load("scorers", name) for name in registry.choices("scorers", shipped=True)]
    assert {getattr(scorer, "name", "") for scorer in scorers if issubclass(scorer, ReadsTags)} == VERIFIERS.keys()
    for name, settings in VERIFIERS.items():
        for key in ("thinking_tags", "answer_tags"):
            with pytest.raises(UserError, match=f"{name}: {key}: '<>' is no name of a tag"):
                make_scorer({"scorer": name, **settings, key: ["<>"]})


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_judges_the_answer_alone(name: str) -> None:
    scorer = make_scorer({"scorer": name, **VERIFIERS[name]})
    right, wrong, gold = {
        "multiple_choice": ("B", "A", "B"),
        "ifeval": ("no comma", "one, comma", FOLLOWED),
    }.get(name, ("7", "8", "7"))
    cases = {
        f"<think>{wrong}</think>{right}": 1,
        f"<THINK>{right}</THINK>{wrong}": 0,
        f"{wrong}</think>{right}": 1,
        f"<think>{right}": 0,
        f"{right}<think>": 0,
        f"<answer>{right}</answer> {wrong}": 1,
        f"{right} <answer>{wrong}</answer>": 0,
        f"<answer>{wrong}</answer><answer>{right}</answer>": 1,
        f"<answer>{right}": 0,
        f"<answer>{right}</answer><answer>": 0,
        f"<think>{wrong}</think>{wrong}<answer>{right}</answer>{wrong}": 1,
        "<answer></answer>": 0,
        "": 0,
    }
    assert scorer.score(["p"], [[*cases]], answer=[gold]) == [[*cases.values()]]


def test_a_gold_answer_of_nothing_is_not_met_by_no_answer() -> None:
    assert [ExactMatch().judge(text, "?").score for text in ("?", "!", "<think>?", "<answer></answer>", "")] == [
        *(1, 1, 0, 0, 0)
    ]
    assert Math().judge("<answer></answer>", "$").score == 0


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "<answer>", "</answer>", "<answer></"])
def test_a_million_tags_take_a_moment(piece: str) -> None:
    begin = time.monotonic()
    ReadsTags().read(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - begin < 2
