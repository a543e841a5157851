"""Steps of a budget, and settings that are tried, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli.compare import budget, tuning
from align.cli.compare.words import Budget, read_comparison
from align.cli.parse import groups


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    """Four steps of 100 tokens: 2 s for the first, 1 s for each other one."""
    lines = [
        {"step": 0, "evaluation/kl": 0.0},
        *({"step": i, "train/tokens": 100, "train/seconds": 2 if i == 1 else 1} for i in range(1, 5)),
    ]
    (tmp_path / "2-mine").mkdir()
    (tmp_path / "2-mine" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_tokens(pilot: Path) -> None:
    assert budget.steps(Budget("tokens", 1234), pilot, 9) == 12


def test_minutes_of_the_whole_process(pilot: Path) -> None:
    """Of 60 s the process needs 9 − 5 s beside its steps: 56 steps of a second are left."""
    assert budget.steps(Budget("minutes", 1), pilot, 9) == 56


def test_one_step_at_least(pilot: Path) -> None:
    assert budget.steps(Budget("minutes", 0.01), pilot, 9) == 1


def test_each_method_has_as_many_settings_and_its_own_first() -> None:
    made = read_comparison(["methods=[dpo,sft]"], groups.find_configs())
    tied = tuning.candidates(made.job(["method=dpo", "method.beta=0.2", "trainer.learning_rate=0.001"]), 4)
    assert tied == [
        [],
        ["trainer.learning_rate=0.003"],
        ["trainer.learning_rate=0.000333333"],
        ["method.beta=0.0666667"],
    ]
    free = tuning.candidates(made.job(["method=sft", "trainer.learning_rate=0.001"]), 4)
    assert free == [
        [],
        ["trainer.learning_rate=0.003"],
        ["trainer.learning_rate=0.000333333"],
        ["trainer.learning_rate=0.01"],
    ]


def test_strengths_along_a_frontier() -> None:
    made = read_comparison(["methods=[dpo,slic,sft,rrhf]"], groups.find_configs())
    setting, strengths = tuning.sweep(made.job(["method=dpo", "method.beta=0.2"]))
    assert setting == "beta"
    assert strengths == {
        0.02: ["method.beta=0.02"],
        0.0666667: ["method.beta=0.0666667"],
        0.2: [],
        0.6: ["method.beta=0.6"],
        2.0: ["method.beta=2"],
    }
    assert list(tuning.sweep(made.job(["method=slic", "method.sft_weight=0.5"]))[1]) == [0.05, 0.166667, 0.5, 1.5, 5.0]
    assert tuning.sweep(made.job(["method=sft"]))[1] == {}
    assert tuning.sweep(made.job(["method=rrhf"]))[1] == {}  # its weight is 0, and so is a tenth of it
