"""Prompts that are too long: left out and counted, without their first turns, or an error (`data.too_long`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data import Preferences, tokenize
from align.data.schema import Unit
from align.errors import UserError
from tests.align.data.published_templates import TEMPLATES, template_tokenizer

TOO_LONG, CUT = "prompt longer than max_length", "response truncated to max_length"
SHORTENED = "first turns of the prompt left out to fit max_length"
RESPONSES = {"demonstration": 1, "pair": 2, "ranking": 3}
TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "user", "assistant", "system"]), st.integers(1, 25)), max_size=7
)
CONVERSATIONS = st.tuples(
    st.booleans(), TURNS, st.integers(1, 25), st.lists(st.integers(1, 40), min_size=3, max_size=3)
)


def chatml() -> Any:
    return template_tokenizer(TEMPLATES["ChatML"][0])


def texts(drawn: tuple[bool, list[tuple[str, int]], int, list[int]]) -> tuple[list[dict[str, str]], list[str]]:
    """A prompt whose turns all differ, maybe with a system turn first, and three answers."""
    system, turns, question, answers = drawn
    roles = [*([("system", 4)] if system else []), *turns, ("user", question)]
    prompt = [{"role": role, "content": f"{i}" + "z" * length} for i, (role, length) in enumerate(roles)]
    return prompt, [mark * length for mark, length in zip("abc", answers, strict=True)]


def data_of(conversations: list[Any], unit: Unit, **rules: Any) -> Preferences:
    rows: list[dict[str, Any]] = []
    for number, (prompt, answers) in enumerate(conversations):
        sides = [(answers[0], None)] if unit == "demonstration" else [(answers[0], answers[1])]
        sides += [(answers[1], answers[2])] if unit == "ranking" else []
        rows += [{"prompt": prompt, "chosen": a, "rejected": b, "prompt_id": f"{number}"} for a, b in sides]
    return Preferences.from_rows(rows, **rules)


def ids_of(prompt: list[dict[str, str]], answer: str | None = None) -> list[int]:
    turns = prompt if answer is None else [*prompt, {"role": "assistant", "content": answer}]
    ids = chatml().apply_chat_template(turns, return_dict=False, add_generation_prompt=answer is None)
    return ids if answer is None else ids[len(ids_of(prompt)) : -1]  # the line break behind the end is not learnt


def prompts_left(prompt: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The prompt, and all that it may be without its first turns, the longest first: each begins with a question."""
    left = [prompt]
    for start in range(1, len(prompt)):
        kept = [turn for turn in prompt[:start] if turn["role"] == "system"]
        if prompt[start]["role"] == "user" and len(kept) < start:
            left.append(kept + prompt[start:])
    return left


@pytest.mark.parametrize("unit", RESPONSES)
@settings(max_examples=15)
@given(st.lists(CONVERSATIONS, min_size=1, max_size=8), st.integers(20, 250))
def test_no_more_turns_are_left_out_than_must_be(unit: Unit, drawn: list[Any], max_length: int) -> None:
    """Whole turns, and never the system's or the last question; then an answer is cut where `max_length` is."""
    conversations = [texts(one) for one in drawn]
    data = data_of(conversations, unit, too_long="truncate_prompt")
    tokenized = tokenize(data, chatml(), max_length=max_length, unit=unit, max_rejected=1.0, may_be_empty=True)
    made = dict(zip(tokenized.rows.tolist(), tokenized, strict=True))
    assert tokenized.report.rejected.keys() <= {"identical once cut"}
    remarks = tokenized.table["remarks"]
    for number, (prompt, answers) in enumerate(conversations):
        responses = [ids_of(prompt, answer) for answer in answers[: RESPONSES[unit]]]
        longest = max(map(len, responses))
        left = prompts_left(prompt)
        fitting = [one for one in left if len(ids_of(one)) + longest <= max_length]
        asked = ids_of((fitting or left[-1:])[0])
        room = max_length - len(asked)
        if number not in made:
            assert room < 2 or len({tuple(response[:room]) for response in responses}) < RESPONSES[unit]
            continue
        assert made[number].prompt_ids == asked
        assert made[number].responses == [response[:room] for response in responses]
        assert (SHORTENED in remarks[number]) == (asked != ids_of(prompt))
        assert (CUT in remarks[number]) == (longest > room)


@pytest.mark.parametrize("unit", RESPONSES)
@settings(max_examples=15)
@given(st.lists(CONVERSATIONS, min_size=1, max_size=8), st.integers(20, 150))
def test_what_is_dropped_is_counted_apart(unit: Unit, drawn: list[Any], max_length: int) -> None:
    """It is no bad row: none is allowed here. As an error it is the same number, with the first place."""
    conversations = [texts(one) for one in drawn]
    long = [i for i, (prompt, _) in enumerate(conversations) if len(ids_of(prompt)) > max_length - 2]
    data = data_of(conversations, unit)
    tokenized = tokenize(data, chatml(), max_length=max_length, unit=unit, max_rejected=0.0, may_be_empty=True)
    report = tokenized.report
    assert report.left_out == ({TOO_LONG: len(long)} if long else {})
    assert (report.read, report.kept, report.rejected) == (len(drawn), len(drawn) - len(long), {})
    assert tokenized.rows.tolist() == [i for i in range(len(drawn)) if i not in long]
    if not long:
        return
    rows = 2 if unit == "ranking" else 1
    place = f"rows:{long[0] * rows + 1}: {TOO_LONG} ({len(ids_of(conversations[long[0]][0]))} tokens of {max_length})"
    assert report.examples[TOO_LONG][0] == place
    with pytest.raises(UserError) as error:
        tokenize(data_of(conversations, unit, too_long="error"), chatml(), max_length=max_length, unit=unit)
    assert f"{len(long)} prompts leave no room for a response within {max_length} tokens (first: {place})" in str(
        error.value
    )
