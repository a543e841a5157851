from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl.rewards import accuracy_reward, get_soft_overlong_punishment, reasoning_accuracy_reward, think_format_reward

from align.errors import ScorerError, UserError
from reward.functions import FunctionScorer

RESPONSES = [[r"\boxed{\frac{1}{2}}", r"\boxed{3}"], [r"\boxed{4}", "<think>a</think>b"]]
PROMPTS = ["half?", "four?"]
ANSWERS = [r"\frac{1}{2}", "4"]


def messages(texts: Sequence[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def lengths(prompts: Sequence[str], responses: Sequence[Sequence[str]], weight: Sequence[int]) -> list[list[int]]:
    """A function of this project's form; ``weight`` is a column."""
    return [[w * len(text) for text in row] for _, row, w in zip(prompts, responses, weight, strict=True)]


def test_a_function_of_our_form_gets_the_columns_it_has_parameters_for() -> None:
    scorer = FunctionScorer(function=lengths)
    assert scorer.name == "lengths"
    assert scorer.score(["p", "q"], [["a", "bb"], ["ccc", ""]], weight=[1, 10], unused=[0, 0]) == [[1, 2], [30, 0]]


def test_accuracy_reward_of_trl() -> None:
    flat = [text for row in RESPONSES for text in row]
    expected = accuracy_reward(messages(flat), [answer for answer in ANSWERS for _ in range(2)])
    scorer = FunctionScorer(function=accuracy_reward, conversational=True, columns={"solution": "answer"})
    table = scorer.score(PROMPTS, RESPONSES, answer=ANSWERS, source=["a", "b"])
    assert [score for row in table for score in row] == expected == [1, 0, 1, 0]


def test_think_format_reward_of_trl() -> None:
    scorer = FunctionScorer(function=think_format_reward, conversational=True)
    assert scorer.score(PROMPTS, RESPONSES) == [[0, 0], [0, 1]]


def test_soft_overlong_punishment_of_trl() -> None:
    """90 of 100 tokens with a cache of 20: −.5."""
    scorer = FunctionScorer(function=get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20))
    assert scorer.name == "soft_overlong_punishment_reward"
    ids = [[[1] * 90, [1] * 101], [[1] * 80]]
    assert scorer.score(PROMPTS, [["a", "b"], ["c"]], completion_ids=ids) == [[-0.5, -1], [0]]
    with pytest.raises(UserError, match="tokenizer"):
        scorer.score(PROMPTS, RESPONSES)


def test_completion_ids_by_a_tokenizer(tiny_model: Path) -> None:
    """The tiny tokenizer has one token per byte."""
    punish = get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)
    scorer = FunctionScorer(function=punish, tokenizer=str(tiny_model))
    assert scorer.score(["p"], [["a" * 6, "a" * 8, "a" * 11]]) == [[0, -0.5, -1]]


def test_none_of_trl_does_not_apply() -> None:
    """An empty gold answer cannot be parsed: TRL skips it."""
    scorer = FunctionScorer(function=reasoning_accuracy_reward, conversational=True)
    response = r"<think>a</think>\boxed{4}"
    table = scorer.score_where_it_applies(["p", "q"], [[response], [response]], solution=["", "$4$"])
    assert table == [[None], [1]]
    with pytest.raises(ScorerError, match="does not apply"):
        scorer.score(["p", "q"], [[response], [response]], solution=["", "$4$"])


def test_plain_text_completions() -> None:
    def shout(completions: list[str], prompts: list[str], **_: Any) -> list[float]:
        return [float(text.isupper() and prompt == "p") for text, prompt in zip(completions, prompts, strict=True)]

    assert FunctionScorer(function=shout).score(["p", "q"], [["A", "b"], ["C"]]) == [[1, 0], [0]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[1.0]], "one score per response"),
        (None, "one score per response"),
        ([[1.0, 2.0], [float("nan"), 1.0]], "prompt 1, response 0"),
        ([[1.0, 2.0], ["7", 1.0]], "finite"),
        ([[1.0, 2.0], [float("inf"), 1.0]], "finite"),
        ([[1.0, 2.0], [None, 1.0]], "does not apply"),
    ],
)
def test_a_wrong_answer_is_an_error_and_never_zero(answer: object, message: str) -> None:
    def wrong(prompts: object, responses: object) -> object:
        del prompts, responses
        return answer

    with pytest.raises(ScorerError, match=message):
        FunctionScorer(function=wrong).score(PROMPTS, RESPONSES)


def test_a_short_list_of_a_trl_function_is_an_error() -> None:
    with pytest.raises(ScorerError, match="4 rewards"):
        FunctionScorer(function=lambda completions: [1.0] * (len(completions) - 1)).score(PROMPTS, RESPONSES)


@pytest.mark.parametrize("form", [tuple, np.array, torch.tensor, lambda rewards: np.array(rewards, np.float32)])
def test_rewards_may_be_an_array_or_a_tensor(form: Callable[[list[float]], Any]) -> None:
    flat = FunctionScorer(function=lambda completions: form([float(len(text)) for text in completions]))
    table = FunctionScorer(
        function=lambda prompts, responses: form([[float(len(text)) for text in row] for row in responses])  # noqa: ARG005
    )
    for scorer in (flat, table):
        assert scorer.score(["p", "q"], [["a", "bb"], ["ccc", ""]]) == [[1, 2], [3, 0]]


@pytest.mark.parametrize("rewards", [np.ones(3), np.ones((4, 1)), np.float64(1), torch.ones(2, 2), "1111", {}])
def test_an_array_of_another_shape_is_an_error(rewards: Any) -> None:
    with pytest.raises(ScorerError, match=r"4 rewards|finite number"):
        FunctionScorer(function=lambda completions: rewards).score(PROMPTS, RESPONSES)  # noqa: ARG005


def test_functions_by_file_and_by_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(completions, **_):\n    return [len(c) for c in completions]\n")
    scorer = FunctionScorer(function=f"{file}:f")
    assert scorer.name == "f"
    assert scorer.score(["p"], [["ab", "abc"]]) == [[2, 3]]
    scorer = FunctionScorer(function="trl.rewards:think_format_reward", conversational=True)
    assert scorer.score(["p"], [["<think>a</think>"]]) == [[1]]


@pytest.mark.parametrize(
    "place",
    ["f", "nowhere.py:f", "no_such_module:f", "trl.rewards:none", "trl.rewards:", "os:sep", "os:getcwd", ":f"],
)
def test_a_place_that_is_no_reward_function_is_refused(place: str) -> None:
    with pytest.raises(UserError, match="function"):
        FunctionScorer(function=place)


def test_an_asynchronous_function_is_refused() -> None:
    async def later(completions: list[str]) -> list[float]:
        return [0.0 for _ in completions]

    class Later:
        async def __call__(self, completions: list[str]) -> list[float]:
            return await later(completions)

    for function in (later, Later(), partial(later)):
        with pytest.raises(UserError, match="asynchronous"):
            FunctionScorer(function=function)


def seen(prompts: Any, completions: Any) -> list[float]:
    """A function of TRL's form that reads the second turn of each prompt, and spoils what it got."""
    scores = [
        float(len(prompt[1]["content"]) * 100 + len(completion[0]["content"]))
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    for prompt in prompts:
        prompt.clear()
    return scores


def test_prompts_of_trl_are_the_turns_of_the_data() -> None:
    """As TRL passes them: every turn with its role, the system's too, a new list for each completion."""
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "half?"}]
    second = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bb"},
        {"role": "user", "content": "c"},
    ]
    got: list[Any] = []

    def keep(prompts: Any, completions: Any, **_: Any) -> list[float]:
        got.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    responses, rows = [["x", "yyy"], ["zz"]], [first, second]
    FunctionScorer(function=keep).score(["flat", "flat"], responses, messages=rows)
    answers = [[{"role": "assistant", "content": text}] for text in ("x", "yyy", "zz")]
    assert got == list(zip([first, first, second], answers, strict=True))
    assert FunctionScorer(function=seen).score(["", ""], responses, messages=rows) == [[501, 503], [202]]
    assert [len(turns) for turns in rows] == [2, 3]


def test_plain_text_is_text_for_trl() -> None:
    """As TRL passes it, so that a function that takes the length of a completion counts letters."""
    got: list[Any] = []

    def keep(prompts: Any, completions: Any) -> list[float]:
        got.extend(prompts)
        return [float(len(completion)) for completion in completions]

    text, turn = [{"role": None, "content": "half?"}], [{"role": "user", "content": "half?"}]
    assert FunctionScorer(function=keep).score(["half?"], [["three"]], messages=[text]) == [[5]]
    assert FunctionScorer(function=keep).score(["half?"], [["three"]]) == [[5]]  # called without the data
    assert FunctionScorer(function=keep, conversational=True).score(["half?"], [["three"]], messages=[text]) == [[1]]
    assert FunctionScorer(function=keep, conversational=False).score(["half?"], [["three"]], messages=[turn]) == [[5]]
    assert FunctionScorer(function=keep, conversational=True).score(["half?"], [["three"]]) == [[1]]
    assert got == ["half?", "half?", turn, "half?", turn]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("def f(:\n", "mine.py, line 1: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "mine.py, line 1, in <module>: ModuleNotFoundError: No module named"),
        ("x = 1\nx / 0\n", "mine.py, line 2, in <module>: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "mine.py, line 1, in <module>: SystemExit: 3"),
        ("import sys\nsys.exit()\n", "mine.py, line 2, in <module>: SystemExit"),
        ("def g(): ...\n", "has no attribute 'f'"),
        ("f = 3\n", "is not a function"),
    ],
)
def test_a_module_that_fails_names_its_line(module: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(module)
    with pytest.raises(UserError, match=message):
        FunctionScorer(function=f"{file}:f")
