from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
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


def test_defaults() -> None:
    scorer = FunctionScorer(function=lengths)
    assert {field.name: getattr(scorer, field.name) for field in dataclasses.fields(scorer)} == {
        "function": lengths,
        "name": "lengths",
        "conversational": None,
        "columns": {},
        "tokenizer": "",
    }
    assert FunctionScorer(function=lengths, name="mine").name == "mine"


class Called:
    """An object that is called has the name of its class."""

    def __call__(self, prompts: Any, responses: Any) -> Any:  # noqa: ARG002
        return [[1.0] * len(row) for row in responses]


def test_an_object_that_is_called() -> None:
    scorer = FunctionScorer(function=Called())
    assert (scorer.name, scorer.score(["p"], [["a", "b"]])) == ("Called", [[1, 1]])


@pytest.mark.parametrize("conversational", [True, False])
def test_the_arguments_of_trl_by_hand(conversational: bool) -> None:
    """Prompts, columns and ids are repeated for each response; only what the function has is passed."""
    got: list[dict[str, Any]] = []

    def keep(prompts: Any, completions: Any, completion_ids: Any, source: Any, weight: Any) -> list[float]:
        got.append(
            {
                "prompts": prompts,
                "completions": completions,
                "completion_ids": completion_ids,
                "source": source,
                "weight": weight,
            }
        )
        return [1.0, 2.0, 3.0]

    scorer = FunctionScorer(function=keep, conversational=conversational, columns={"weight": "w", "absent": "nowhere"})
    columns = {"source": ["s", "t"], "w": [5, 6], "weight": [0, 0], "unused": [1, 2]}
    ids = [[[1], (2, 3)], [[4]]]
    assert scorer.score(["p", "q"], [["a", "b"], ["c"]], completion_ids=ids, **columns) == [[1, 2], [3]]

    def said(role: str, *texts: str) -> Any:
        return [[{"role": role, "content": text}] for text in texts] if conversational else list(texts)

    (found,) = got
    assert found == {
        "prompts": said("user", "p", "p", "q"),
        "completions": said("assistant", "a", "b", "c"),
        "completion_ids": [[1], [2, 3], [4]],
        "source": ["s", "s", "t"],
        "weight": [5, 5, 6],  # the column that it is renamed from, not the one of that name
    }


def test_a_function_that_takes_everything_is_given_every_column() -> None:
    got: list[set[str]] = []

    def ours(prompts: Any, responses: Any, **columns: Any) -> Any:  # noqa: ARG001
        got.append(set(columns))
        return [[0.0] * len(row) for row in responses]

    def theirs(completions: Any, *_: Any, **columns: Any) -> Any:
        got.append(set(columns))
        return [0.0] * len(completions)

    for function in (ours, theirs):
        FunctionScorer(function=function, columns={"new": "old"}).score(["p"], [["a"]], old=[1], other=[2])
    assert got == [{"old", "other", "new"}, {"old", "other", "new", "prompts"}]


def test_ids_of_the_caller_come_before_those_of_the_tokenizer(tiny_model: Path) -> None:
    """The tokenizer is not asked for a beginning of sequence."""
    got: list[Any] = []

    def keep(completion_ids: Any) -> list[float]:
        got.append(completion_ids)
        return [0.0] * len(completion_ids)

    scorer = FunctionScorer(function=keep, tokenizer=str(tiny_model))
    scorer.score(["p"], [["a", "b"]], completion_ids=[[[9], [8]]])
    scorer.score(["p"], [["a", "ab"]])
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    assert got == [[[9], [8]], [tokenizer.convert_tokens_to_ids(["a"]), tokenizer.convert_tokens_to_ids(["a", "b"])]]


def test_a_conversation_in_which_some_turns_have_a_role_is_one() -> None:
    got: list[Any] = []

    def keep(prompts: Any, completions: Any) -> list[float]:
        got.extend(prompts)
        return [0.0] * len(completions)

    turns = [{"role": None, "content": "a"}, {"role": "assistant", "content": "b"}]
    FunctionScorer(function=keep).score(["x"], [["y"]], messages=[turns])
    assert got == [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]


@pytest.mark.parametrize(
    ("needs", "remedy"),
    [
        (lambda completions, extra: [], "needs extra, which .* add it or rename one with `columns`"),  # noqa: ARG005
        (lambda completions, completion_ids: [], "needs completion_ids, which .* add it or set `tokenizer`"),  # noqa: ARG005
        (lambda completions, completion_ids, x: [], "needs completion_ids, x, which .* rename one with `columns`"),  # noqa: ARG005
        (lambda prompts, responses, extra, other=1: [], r"needs extra, .* \(prompts, responses, given\)"),  # noqa: ARG005
    ],
)
def test_a_column_that_is_missing_is_named(needs: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        FunctionScorer(function=needs, name="f").score(["p"], [["a"]], given=[1])


@pytest.mark.parametrize(
    "function",
    [lambda prompts: [], lambda responses: [], lambda prompts, answers: [], lambda: [], lambda **columns: []],  # noqa: ARG005
)
def test_a_function_of_neither_form_is_refused(function: Any) -> None:
    with pytest.raises(UserError, match="it needs prompts and responses, or TRL's completions or completion_ids"):
        FunctionScorer(function=function, name="f")


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [1.0] * 4, 3.0, None, iter([1.0, 2.0, 3.0])])
def test_trl_functions_return_one_reward_for_each_completion(rewards: Any) -> None:
    with pytest.raises(ScorerError, match="'f' must return a list of 3 rewards, one per completion"):
        FunctionScorer(function=lambda completions: rewards, name="f").score(["p", "q"], [["a", "b"], ["c"]])  # noqa: ARG005


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"name": "other"}, True),
        ({"columns": {"solution": "answer"}}, False),
        ({"conversational": True}, False),
        ({"conversational": False}, False),
        ({"tokenizer": "gpt2"}, False),
        ({"function": think_format_reward}, False),
    ],
)
def test_every_setting_that_changes_scores_is_part_of_the_identity(change: dict[str, Any], same: bool) -> None:
    plain = FunctionScorer(function=accuracy_reward)
    assert (FunctionScorer(**{"function": accuracy_reward, **change}).identity() == plain.identity()) is same


def test_the_name_in_a_file_is_part_of_the_identity(tmp_path: Path) -> None:
    """Two names for one function of one file: which is used is told apart, in which folder is not."""
    text = "def f(prompts, responses): return responses\ng = f\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    f, g, moved = (
        FunctionScorer(function=f"{tmp_path}/{place}").identity()
        for place in ("a/mine.py:f", "a/mine.py:g", "b/mine.py:f")
    )
    assert f == moved != g
    (tmp_path / "b" / "mine.py").write_text(text + "x = 1\n")
    assert FunctionScorer(function=f"{tmp_path}/b/mine.py:f").identity() != f
