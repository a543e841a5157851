"""Scorers from a configuration, and the check of what they answer."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import score, score_parts
from align.scoring.from_config import make_scorer, read_scorer
from align.system.signals import Interrupted

NESTED = """
scorer: weighted_sum
scorers:
  brevity: {scorer: length, maximum: 2}
  variety:
    scorer: ensemble
    scorers: {pairs: {scorer: repetition, n: 2}, words: {scorer: repetition, n: 1}}
weights: {brevity: 0.5, variety: 2.0}
"""


def test_nested_settings_by_hand(tmp_path: Path) -> None:
    """ "a a a": length 2 − 3/2 = .5; repetition of pairs 1/2, of words 1/3: .25 + 2·(5/12) = 1.083333."""
    file = tmp_path / "scorer.yaml"
    file.write_text(NESTED)
    assert read_scorer(str(file)).score(["p"], [["a a a"]]) == [[pytest.approx(0.25 + 5 / 6)]]


def test_a_correction_names_what_it_corrects() -> None:
    scorer = make_scorer(
        {"scorer": "length_corrected", "base": {"scorer": "length", "maximum": 9}, "weight": 1, "per": 1}
    )
    assert scorer.score(["p"], [["a b"]]) == [[-1]]


def test_a_name_alone_is_a_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_scorer("repetition").name == "repetition"
    monkeypatch.chdir(tmp_path)
    Path("repetition").mkdir()
    assert read_scorer("repetition").name == "repetition"  # not the folder


@pytest.mark.parametrize("ending", [".yaml", ".yml"])
def test_a_file_is_known_by_its_ending(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"scorer{ending}"
    file.write_text("{scorer: length, name: '${also}', maximum: 3}")
    with pytest.raises(UserError, match="cannot be read"):
        read_scorer(str(file))  # a value that it refers to is missing
    file.write_text("{scorer: length, name: mine, maximum: 3}")
    assert read_scorer(str(file)).name == "mine"
    with pytest.raises(UserError, match=r"is not one of the scorers"):
        read_scorer("scorer.json")


def test_settings_inside_settings_may_be_scorers() -> None:
    scorer = make_scorer({"scorer": "ensemble", "scorers": {"a": {"scorer": "repetition"}}})
    assert type(scorer.scorers["a"]).__name__ == "Repetition"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"^mine\.scorers\.a\.scorer is missing|^mine\.scorers\.a\.scorer:"):
        make_scorer({"scorer": "ensemble", "scorers": {"a": {"scorer": 3}}}, "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: rm", r"scorer.yaml: `scorer:` is missing: name one of cosine_length, ensemble, "),
        ("scorer: lenght", r"scorer.yaml: scorer: 'lenght' is not one of the scorers.*Did you mean \"length\"\?"),
        (NESTED.replace("maximum", "maximal"), r"scorers.brevity \(length\): maximal is not.*\"maximum\"\?"),
        (NESTED.replace("n: 1", "n: one"), r"scorers.variety.scorers.words \(repetition\): n must be a whole number"),
        (NESTED.replace("brevity: 0.5", "brvity: 1"), r"'brvity' is not one of.*Did you mean \"brevity\"\?"),
        (
            NESTED.replace("{scorer: length, maximum: 2}", "length"),
            "brevity=.length. is not a scorer; write brev",
        ),
        ("{scorer: ensemble, scorers: [math]}", r"scorers must be names with values .*, not \['math'\]"),
        ("{scorer: length_corrected, weight: 1}", r"\(length_corrected\): base is missing; it must be given"),
        ("{scorer: reward_model, model: ./nowhere}", r"model=./nowhere: there is no such folder"),
        ("{scorer: http, url: 'http://example.org/score'}", r"\(http\): url=.* use https://"),
        ("- length", "holds no settings; write `scorer: NAME` in it"),
        ("scorer: [", r"scorer.yaml: line 1 is no YAML \(.*\); give a YAML file"),
        ("scorer: nosuch", r"scorer.yaml: scorer: 'nosuch' is not one of the scorers"),
    ],
)
def test_wrong_files_are_answered_with_the_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "scorer.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_scorer(str(file))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "scorer.yaml").write_bytes(b"scorer: \xf0\x00")
    with pytest.raises(UserError, match=r"scorer.yaml: it cannot be read"):
        read_scorer(str(tmp_path / "scorer.yaml"))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^nowhere.yaml: there is no such file; "):
        read_scorer("nowhere.yaml")
    with pytest.raises(
        UserError, match=r"^'nosuch' is not one of the scorers: cosine_length, ensemble, .* is a YAML file"
    ):
        read_scorer("nosuch")


class Answers:
    """A scorer that answers whatever a test says."""

    name = "answers"

    def __init__(self, table: Any) -> None:
        self.table = table

    def score(self, *_: Any, **__: Any) -> Any:
        return self.table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1.0]], "must return one score per response, 2 rows of 2"),
        ([[1.0, 2.0], [1.0]], "must return one score per response"),
        (None, "must return one score per response"),
        ([[1.0, 2.0], [math.nan, 1.0]], "prompt 1, response 0: 'nan' is not a finite number"),
        ([[1.0, math.inf], [1.0, 1.0]], "prompt 0, response 1: 'inf' is not a finite number"),
        ([[1.0, "0.5"], [1.0, 1.0]], "prompt 0, response 1: '0.5' is not a finite number"),
        ([[1.0, None], [1.0, 1.0]], "does not apply to response 1 of prompt 0"),
        ([[1.0, True], [1.0, 1.0]], "prompt 0, response 1: 'True' is not a finite number"),
        ([[1.0, np.False_], [1.0, 1.0]], "prompt 0, response 1: 'False' is not a finite number"),
        ([[1.0, 10**400], [1.0, 1.0]], "prompt 0, response 1: '1000.*' is not a finite number"),
        ([[1.0, 1 << 20000], [1.0, 1.0]], "prompt 0, response 1: an integer of 20001 bits is not a finite number"),
        ([[1.0, 1j], [1.0, 1.0]], "'1j' is not a finite number"),
        ([[1.0, [1.0]], [1.0, 1.0]], "is not a finite number"),
        ([[1.0, np.inf], [1.0, 1.0]], "'inf' is not a finite number"),
        ([[1.0, b"1"], [1.0, 1.0]], "is not a finite number"),
        ([[1.0, object()], [1.0, 1.0]], "is not a finite number"),
        ("ab", "must return one score per response"),
        ({"ab": 1, "cd": 2}, "must return one score per response"),
        (0.5, "must return one score per response"),
    ],
)
def test_no_score_is_made_up(table: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        score(Answers(table), ["p", "q"], [["a", "b"], ["c", "d"]])


def test_numbers_of_numpy_and_pytorch_are_scores() -> None:
    table = [[np.float32(0.5), torch.tensor(1.5)], [np.int64(2), 3]]
    assert score(Answers(table), ["p", "q"], [["a", "b"], ["c", "d"]]) == [[0.5, 1.5], [2, 3]]


class Failing:
    """A scorer that does whatever a test says."""

    name = "mine"

    def __init__(self, does: Any) -> None:
        self.does = does

    def score(self, *_: Any, **__: Any) -> Any:
        return self.does()


FAILURES = [
    (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    (lambda: {}["missing"], "KeyError: 'missing'"),
    (lambda: sys.exit(3), "SystemExit: 3"),
    (lambda: json.loads("no"), "JSONDecodeError: Expecting value"),  # raised in a library that it calls
    (lambda: next(iter(())), "StopIteration"),
]


@pytest.mark.parametrize(("does", "message"), FAILURES, ids=[message for _, message in FAILURES])
def test_an_exception_names_file_and_line_of_the_scorer(does: Any, message: str) -> None:
    line = does.__code__.co_firstlineno
    expected = rf"scorer 'mine' failed at .*test_scoring\.py, line {line}, in <lambda>: {message}.*; correct it\.$"
    with pytest.raises(ScorerError, match=expected):
        score(Failing(does), ["p"], [["a"]])
    with pytest.raises(ScorerError, match=expected):
        score_parts("mixture", {"one": Failing(does)}, ["p"], [["a"]])


def test_what_a_scorer_says_to_the_user_stays_and_ctrl_c_is_none_of_its_errors() -> None:
    def refuse() -> None:
        raise UserError("the column `answer` is missing; add it.")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(UserError, match=r"^the column `answer` is missing; add it\.$"):
        score(Failing(refuse), ["p"], [["a"]])

    def ask_a_policy() -> None:  # a signal ends its pass
        raise Interrupted(2, None)

    for does, expected in ((interrupt, KeyboardInterrupt), (ask_a_policy, Interrupted)):
        with pytest.raises(expected):
            score(Failing(does), ["p"], [["a"]])
