"""Scorers from a configuration, and the check of what they answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import score
from align.scoring.from_config import make_scorer, read_scorer

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


def test_a_name_alone_is_a_scorer() -> None:
    assert read_scorer("repetition").name == "repetition"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: rm", r"scorer.yaml: `scorer:` is missing: name one of ensemble, "),
        ("scorer: lenght", r"scorer.yaml.scorer: 'lenght' is not one of the scorers.*Did you mean \"length\"\?"),
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
        ("scorer: [", "cannot be read: "),
    ],
)
def test_wrong_files_are_answered_with_the_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "scorer.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_scorer(str(file))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"nowhere.yaml cannot be read"):
        read_scorer("nowhere.yaml")


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
    ],
)
def test_no_score_is_made_up(table: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        score(Answers(table), ["p", "q"], [["a", "b"], ["c", "d"]])
