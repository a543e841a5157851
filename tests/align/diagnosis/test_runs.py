"""Small runs that are ill, and the same ones without what made them so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align import Evaluator, Policy, Preferences, SamplingParams, Trainer, TrainerConfig
from align.diagnosis.verdict import diagnose
from align.method.base import Method
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from methods import DPO, GRPO, SFT

pytestmark = pytest.mark.usefixtures("without_charts")

Rows = list[dict[str, str]]


class Ascii:
    """Share of ASCII among the characters of an answer."""

    name = "ascii"

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        return [[sum(map(str.isascii, text)) / max(1, len(text)) for text in row] for row in responses]


class Constant(Ascii):
    """The same for every answer."""

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        return [[1.0] * len(row) for row in responses]


def findings(
    method: Method,
    model: Path,
    rows: Rows,
    folder: Path,
    *,
    scorer: Any = None,
    evaluate: bool = False,
    **settings: Any,
) -> list[str]:
    """Names of all that is unhealthy in a run of twenty steps; all of it is in warnings.jsonl too."""
    policy = Policy.load(str(model), adapter=Adapter(r=4))
    data = Preferences.from_rows(rows)
    config = TrainerConfig(**{"steps": 20, "batch_size": 8, "max_length": 200, "save_steps": None} | settings)
    evaluator = None
    if evaluate:
        policy.require(("reference",))
        sampling = SamplingParams(max_new_tokens=8, temperature=1.0)
        evaluator = Evaluator.from_preferences(policy, data, None, max_length=200, limit=16, sampling=sampling)
    Trainer(policy, folder, config).fit(method, data, None, evaluator, scorer=scorer)
    found = [finding.name for finding in diagnose(folder).findings]
    assert {record["name"] for record in read_records(folder / "warnings.jsonl")} >= set(found)
    return found


def test_pairs_that_are_not_learned(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    assert findings(DPO(), tiny_model, pair_rows, tmp_path / "ill", learning_rate=1e-7) == ["loss at ln 2"]
    assert findings(DPO(), tiny_model, pair_rows, tmp_path / "well", learning_rate=3e-3) == []


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    found = findings(SFT(), tiny_model, pair_rows, tmp_path / "ill", learning_rate=3.0, schedule="constant")
    assert "learning rate too high" in found
    assert findings(SFT(), tiny_model, pair_rows, tmp_path / "well", learning_rate=1e-2) == []


@pytest.mark.slow
def test_a_learning_rate_that_is_too_low(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """The answers drawn with one seed are the same as before."""
    for rate, said in ((1e-8, True), (1e-2, False)):
        found = findings(SFT(), tiny_model, pair_rows, tmp_path / str(rate), learning_rate=rate, evaluate=True)
        assert ("learning rate too low" in found) is said


@pytest.mark.slow
def test_a_reward_that_is_constant(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    for scorer, said in ((Constant(), True), (Ascii(), False)):
        method = GRPO(responses=2, max_new_tokens=8, missing_eos="none")
        found = findings(method, tiny_model, pair_rows, tmp_path / str(said), scorer=scorer, learning_rate=1e-3)
        assert ("constant reward" in found) is said
