"""Answers are drawn once, in an order of their own, the same again after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import Policy, Preferences, SamplingParams
from align.errors import UserError
from align.labelling.drawing import Drawing


class Letters:
    """Scores an answer by its length."""

    name = "letters"

    def score(self, prompts: Any, responses: Any, **_: Any) -> list[list[float]]:
        assert len(prompts) == len(responses)
        return [[float(len(text)) for text in row] for row in responses]


SAMPLING = SamplingParams(temperature=1.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return Policy.load(str(tiny_model), adapter=None)


@pytest.fixture
def prompts(pair_rows: list[dict[str, Any]]) -> Preferences:
    """Twelve prompts, one of them twice, and one that is too long."""
    texts = [row["prompt"] for row in pair_rows[:12]]
    return Preferences.from_rows([{"prompt": text} for text in (*texts, texts[0], "long " * 40)])


def test_two_answers_of_one_policy(policy: Policy, prompts: Preferences) -> None:
    drawing = Drawing([policy], prompts, SAMPLING, max_length=100, seed=3)
    queue = drawing.queue(100)
    assert (sorted(queue), drawing.too_long) == (list(range(12)), 1)
    assert queue != sorted(queue)
    assert drawing.queue(5) == queue[:5]
    chunks = list(drawing.draw(queue))
    assert [len(chunk) for chunk in chunks] == [8, 4]
    pairs = [pair for chunk in chunks for pair in chunk]
    assert [pair.row["prompt"] for pair in pairs] == [prompts[i]["prompt"][0]["content"] for i in queue]
    assert sum(pair.same for pair in pairs) < 6
    assert all(answer.text == policy.decode(answer.ids) for pair in pairs for answer in pair.answers)
    again = Drawing([policy], prompts, SAMPLING, max_length=100, seed=3)
    assert [pair for chunk in again.draw(queue[8:]) for pair in chunk] == pairs[8:]


def test_one_answer_of_each_of_two(policy: Policy, prompts: Preferences) -> None:
    """Greedy, the same model twice gives equal answers: each gave one."""
    greedy = SamplingParams(temperature=0.0, max_new_tokens=4)
    drawing = Drawing([policy, policy], prompts, greedy, max_length=100, seed=0)
    (pairs,) = drawing.draw(drawing.queue(3))
    assert all(pair.same for pair in pairs)
    assert all(pair.row["drawn_with"] for pair in pairs)


def test_the_scorer_scores_each_answer(policy: Policy, prompts: Preferences) -> None:
    drawing = Drawing([policy], prompts, SAMPLING, max_length=100, seed=0)
    (pairs,) = drawing.draw(drawing.queue(4), Letters())
    lengths = [[float(len(answer.text)) for answer in pair.answers] for pair in pairs]
    assert [[answer.score for answer in pair.answers] for pair in pairs] == lengths


def test_conversations_and_texts_are_written_alike(policy: Policy, tmp_path: Path) -> None:
    """A column has one type, so texts among conversations become user turns."""
    files = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    files[0].write_text(json.dumps({"prompt": "A text?"}))
    files[1].write_text(json.dumps({"prompt": [{"role": "user", "content": "A turn?"}]}))
    drawing = Drawing([policy], Preferences.load(files), SAMPLING, max_length=100, seed=0)
    (pairs,) = drawing.draw([0, 1])
    assert [pair.row["prompt"] for pair in pairs] == [
        [{"role": "user", "content": "A text?"}],
        [{"role": "user", "content": "A turn?"}],
    ]


def test_no_room_for_a_prompt(policy: Policy, prompts: Preferences) -> None:
    with pytest.raises(UserError, match=r"max_new_tokens=6 leaves no room for a prompt in max_length=8"):
        Drawing([policy], prompts, SAMPLING, max_length=8, seed=0)
