from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import UserError
from reward.verifiers.ifeval import IFEval, Instruction, follow_list, loose_texts, read_instructions
from reward.verifiers.instructions import CHECKS, count_sentences

ENGLISH = "the old man walked slowly down to the river and looked at the water for a long time"

# For every instruction: arguments, a response that follows it, one that does not.
EXAMPLES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NO, WELL-DONE",
        "NO Way",
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "NO Way", "I AM"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    (
        "change_case:english_capital",
        {},
        ENGLISH.upper(),
        "DER ALTE MANN GING LANGSAM ZUM FLUSS UND BETRACHTETE DAS WASSER",
    ),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a Poem. "},
        "write a poem.\nRoses",
        "Sure! Write a poem.",
    ),
    ("combination:two_responses", {}, "one ****** two", "one ****** one"),
    ("combination:two_responses", {}, "******one******two******", "one******two******three"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [address]", "[name], [add\nress]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\n\nP. S. I", "Bye\nPS I"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye\np.p.s I", "Bye\nP.S. I"),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe.", "My answer is yes"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', '{"a": [1]'),
    ("detectable_format:json_format", {}, "[]", "[" * 100_000),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1 a SECTION 2 b",
        "Section 1 a SECTION 2",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b\n** c", "* a\n* b\n* c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b c*", "*a* and * *"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\n<<a\nb>>"),
    ("keywords:existence", {"keywords": ["Rain", "sun"]}, "rainy Sunday", "rain"),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocket", "A Rock!"),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "at least"}, "War, warm", "war"),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"}, "war", "war war"),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_frequency": 2, "let_relation": "less than"},
        "quick",
        "Quite quick",
    ),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "##", "#"),
    ("language:response_language", {"language": "de"}, "Der alte Mann ging langsam zum Fluss hinunter.", ENGLISH),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "A b.\n\n'Then, c",
        "Then\n\nA",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "A\n\nthen c",
        "A\n\nthen c\n\nd",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n***\n***\nb"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "One. Two",
        "Dr. One, e.g. so",
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "It is 3.5 m.", "One! Two?"),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        "well-done my friend",
        "well done friend",
    ),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "one two three", "one two three 4"),
    ("punctuation:no_comma", {}, "a; b", "a, b"),
    ("startend:end_checker", {"end_phrase": "Peace!"}, '"I say peace!" ', "Peace! Bye"),
    ("startend:quotation", {}, ' "a" ', '"a'),
]


# Further ones at the edges of what an instruction allows: arguments, responses that follow it, and that do not.
EDGES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "combination:two_responses",
        {},
        ["a******b", "******a******b", "a******b******"],
        ["a", "a******", "a************b", "a****** a", "a******b******c"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": " Say it "}, ["  SAY IT twice"], ["say", "I say it"]),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a][b]", "[a] [b] [c]", "[a]\n[b]", "[[a] [b]"],
        ["[a]", "[a] [b", "a] b]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["p.s. x", "P. S. x"],
        ["PS x", "P.P x", ""],
    ),
    ("detectable_content:postscript", {"postscript_marker": "NB:"}, ["nb: x"], ["nb x"]),
    (
        "detectable_format:json_format",
        {},
        ["```\n1\n```", "```JSON\n{}```", " [1] ", "null"],
        ["{} x", "```json", "'a'"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": " Part ", "num_sections": 2},
        ["Part 1 Part2", "Part 1 Part 2 Part 3"],
        ["Part 1", "Part A Part B", "Part  1 Part  2"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["- a\n- b", "* a\n  * b\n**c**", "-a\n*b"],
        ["- a", "- a\n- b\n- c", "a - b\n- c", "*\n- a"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "**a** **b**", "*a* **b** *c*"],
        ["*a*", "*a*  **", "*a\nb* *c*", "* * *a*"],
    ),
    ("detectable_format:title", {}, ["x\n<<a>>", "<<<a>>>", "a <<b>> c"], ["<<>>", "<a>", "<< >>", ">>a<<", "<<<>>>"]),
    ("keywords:existence", {"keywords": ["a", "B"]}, ["b A", "xaxb"], ["a", "b", ""]),
    ("keywords:forbidden_words", {"forbidden_words": ["a", "c++"]}, ["ab", "x"], ["x A.", "b a"]),
    ("keywords:frequency", {"keyword": " Ab ", "frequency": 2, "relation": "at least"}, ["ababab", "abAB"], ["ab"]),
    ("keywords:frequency", {"keyword": "ab", "frequency": 2, "relation": "less than"}, ["ab", "x"], ["abab", "ababab"]),
    (
        "keywords:letter_frequency",
        {"letter": "a", "let_frequency": 2, "let_relation": "at least"},
        ["aA", "aaa"],
        ["a", "b"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "one"},
        ["One, a\n\nb", '"one" a\n\nb', "one\n\n b\n\n"],
        ["a\n\none", "one\n\nb\n\nc", "one", "ones\n\nb"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a***b", "***a***b***", " *** a *** b"],
        ["a", "a******b", "a***b***c", "a***"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 2, "relation": "at least"},
        ["a b", "a-b", "a b c"],
        ["a", "..."],
    ),
    ("length_constraints:number_words", {"num_words": 2, "relation": "less than"}, ["a"], ["a b", "a b c"]),
    ("startend:end_checker", {"end_phrase": " the End "}, ["so THE END", '"the end"', "the end \n"], ["the end."]),
    ("startend:quotation", {}, ['"a"', '""', ' "a" '], ['"', '"a', 'a"', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["A B", "DON'T U.S.", "A B C"],
        ["A b", "Ab Cd", "A-B 12"],
    ),
    ("punctuation:no_comma", {}, ["a"], [",", "a,b"]),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is no.", "My answer is maybe. Yes"],
        ["my answer is no."],
    ),
]


@pytest.mark.parametrize(
    ("identity", "arguments", "good", "bad"), EDGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_edges_of_instructions(identity: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    instruction = Instruction.read(identity, arguments)
    assert [text for text in good if not instruction.followed(text)] == []
    assert [text for text in bad if instruction.followed(text)] == []


def test_an_empty_or_endless_text_follows_nothing() -> None:
    instruction = Instruction.read("punctuation:no_comma", {})
    assert [instruction.followed(text) for text in ("", " \n", "a" * 200_000, "a" * 200_001)] == [
        False,
        False,
        True,
        False,
    ]


def test_the_share_is_of_the_instructions_and_all_of_them_are_one() -> None:
    ids = ["punctuation:no_comma", "startend:quotation", "detectable_format:title"]
    columns: dict[str, Any] = {"instruction_id_list": [ids], "kwargs": [[None, {}, {"x": None}]]}
    texts = [["a", '"a"', '"<<a>>"', "a,"]]
    assert IFEval(level="instruction").score(["p"], texts, **columns) == [[1 / 3, 2 / 3, 1, 0]]
    assert IFEval().score(["p"], texts, **columns) == [[0, 0, 1, 0]]
    assert (IFEval().level, IFEval().loose, IFEval().name) == ("prompt", False, "ifeval")


def test_loosely_one_text_must_follow_it() -> None:
    """Each instruction in a text of its own; blanks at the ends of a text that was cut do not count."""
    instructions = read_instructions(
        ["startend:quotation", "combination:repeat_prompt"], [{}, {"prompt_to_repeat": "x"}]
    )
    assert follow_list('x\n"a"', instructions) == [False, True]
    assert follow_list('x\n "a" ', instructions, loose=True) == [True, True]
    assert follow_list('y\n*"a"*\nz', instructions, loose=True) == [True, False]
    assert loose_texts(" a\n b \n") == [" a\n b \n", " a\n b \n", "a\n b", "a\n b", "b", "b", "b", "b"]


@pytest.mark.parametrize(("identity", "arguments", "good", "bad"), EXAMPLES)
def test_every_instruction_by_hand(identity: str, arguments: dict[str, Any], good: str, bad: str) -> None:
    instruction = Instruction.read(identity, arguments)
    assert instruction.followed(good)
    assert not instruction.followed(bad)


def test_all_twenty_five_are_exemplified() -> None:
    assert {identity for identity, *_ in EXAMPLES} == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no end", 1),
        ("One. Two? Three!", 3),
        ('She said "Go." Then he went...', 2),
        ("Dr. J. K. Miller came at 3.5 p.m. on Monday. Good.", 2),
        ("1. First.\n2. Second.", 2),
        ("He said no. So did I. Well", 3),
        (". . . .", 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_the_eight_loose_texts() -> None:
    assert sorted(loose_texts("a\n*b*\nc")) == sorted(
        ["a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b"]
    )


def test_loose_forgives_a_first_line_that_strict_does_not() -> None:
    instructions = read_instructions(["startend:quotation", "punctuation:no_comma"], [{}, {}])
    assert follow_list('Sure, here it is:\n"text"', instructions) == [False, False]
    assert follow_list('Sure, here it is:\n"text"', instructions, loose=True) == [True, True]


def test_scores_are_strict_unless_loose_is_asked_for() -> None:
    columns = {"instruction_id_list": [["startend:quotation"]], "kwargs": [[{}]]}
    assert IFEval().score(["p"], [['Sure:\n"text"']], **columns) == [[0]]
    assert IFEval(loose=True).score(["p"], [['Sure:\n"text"']], **columns) == [[1]]


IDS = [["punctuation:no_comma", "startend:quotation"], ["keywords:existence"]]
KWARGS: list[list[dict[str, Any]]] = [[{}, {"keywords": None}], [{"keywords": ["rain"], "num_words": None}]]
RESPONSES = [["a b", '"a"', ""], ["It rains"]]


@pytest.mark.parametrize("settings_", [{}, {"level": "instruction"}])
def test_scores_from_columns_and_from_json(settings_: dict[str, Any]) -> None:
    """The first response follows one of two instructions; arguments that are null do not count."""
    scorer = IFEval(**settings_)
    expected = [[0.5 if settings_ else 0, 1, 0], [1]]
    assert scorer.score(["p", "q"], RESPONSES, instruction_id_list=IDS, kwargs=KWARGS) == expected
    rows = [json.dumps({"instruction_id_list": ids, "kwargs": kwargs}) for ids, kwargs in zip(IDS, KWARGS, strict=True)]
    assert scorer.score(["p", "q"], RESPONSES, answer=rows, source=["a", "b"]) == expected


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        (["punctuation:no_coma"], [{}], "no_comma"),
        (["keywords:existence"], [{}], "keywords"),
        (["punctuation:no_comma"], [{"x": 1}], "x"),
        (["punctuation:no_comma"], [], "as many"),
        ([], [], "at least one"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": "more"}], "less than"),
    ],
)
def test_wrong_instructions_are_refused(ids: list[str], kwargs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        IFEval().score(["p"], [["a"]], instruction_id_list=[ids], kwargs=[kwargs])


@pytest.mark.parametrize("answer", [None, [None], ["42"], ["{}"], ["no"]])
def test_missing_instructions_are_refused(answer: list[Any] | None) -> None:
    with pytest.raises(UserError, match="instruction_id_list"):
        IFEval().score(["p"], [["a"]], answer=answer)


@pytest.mark.parametrize("unit", ["Mr. ", ". ", "[", "<", "\n", "*", " ", "\n1. ", "- ", "A-", "p. p. ", '"', "a"])
def test_hostile_text_takes_bounded_time(unit: str) -> None:
    text = (unit * 200_000)[:200_000]
    arguments = {identity: arguments for identity, arguments, *_ in EXAMPLES}
    begin = time.monotonic()
    for identity, values in arguments.items():
        follow_list(text, [Instruction.read(identity, values)], loose=True)
    assert time.monotonic() - begin < 20
    assert not Instruction.read("punctuation:no_comma", {}).followed("a" * 10_000_000)


@given(text=st.text(max_size=300))
@settings(max_examples=40, deadline=None)
def test_loose_is_never_below_strict(text: str) -> None:
    for identity, arguments, *_ in EXAMPLES:
        instructions = [Instruction.read(identity, arguments)]
        assert follow_list(text, instructions, loose=True) >= follow_list(text, instructions)


def test_all_published_prompts_can_be_judged(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/ifeval/input_data.jsonl").read_text().splitlines()]
    prompts = [row["prompt"] for row in rows]
    columns = {key: [row[key] for row in rows] for key in ("instruction_id_list", "kwargs")}
    table = IFEval(level="instruction").score(prompts, [[prompt, ""] for prompt in prompts], **columns)
    assert len(table) == 541
    assert all(0 <= score <= 1 and empty == 0 for score, empty in table)
    assert {identity for ids in columns["instruction_id_list"] for identity in ids} == set(CHECKS)


# The prompt itself as the response: what it follows of its own instructions, and why.
PUBLISHED = [
    (1000, [False, True, False]),  # commas; three parts between asterisks; 60 words, not 300
    (1001, [False]),  # a comma
    (1005, [False]),  # [address], [name]: two placeholders, not 12
    (1012, [True, True]),  # begins with the request; <<title>>
    (1069, [True, False, False]),  # both keywords; 35 words, not 500; a comma
    (1072, [False]),  # 17 words, not 400
    (1075, [False]),  # no JSON
    (1082, [False]),  # nothing after the divider: one paragraph
    (1098, [True]),  # text ****** full stop: two different responses
    (1107, [True, True]),  # no comma; as above
    (1108, [False]),  # English, not Kannada
    (1122, [False, False]),  # a capital I; one #, not four
    (1127, [False, True]),  # no number after SECTION; ends with the phrase and a quotation mark
    (1128, [False]),  # a full stop after the phrase and its quotation mark
]


@pytest.mark.parametrize(("key", "followed"), PUBLISHED)
def test_published_prompts_by_hand(key: int, followed: list[bool], shared: Path) -> None:
    for line in (shared / "data/ifeval/input_data.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["key"] == key:
            instructions = read_instructions(row["instruction_id_list"], row["kwargs"])
            assert follow_list(row["prompt"], instructions) == followed
