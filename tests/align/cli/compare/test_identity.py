"""A comparison that goes on: what was made of other files, code or weights is not taken for its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.cli.compare import measuring
from align.cli.compare.jobs import Job
from align.cli.compare.stages import START, Stages
from align.errors import ScorerError, UserError
from align.system.files import write_json
from tests.align.cli.compare.conftest import measured

Begin = Callable[..., Stages]
JUDGE = "def judge(prompts, completions, **columns):\n    return [{} for _ in completions]\n"


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[str], str]:
    """Writes a judge that gives every answer this value, and returns the word of the comparison that names it."""

    def write(value: str) -> str:
        (tmp_path / "judge.py").write_text(JUDGE.format(value))
        (tmp_path / "judge.yaml").write_text(f"scorer: function\nfunction: {tmp_path / 'judge.py'}:judge\n")
        return f"judge={tmp_path / 'judge.yaml'}"

    return write


def asked(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is measured when the start model is wanted; each is written as if it had been."""
    names: list[str] = []

    def do(jobs: Sequence[Job]) -> Mapping[str, Any]:
        for job in jobs:
            for task in json.loads(Path(job.command[-1]).read_text()):
                names.append(Path(task["out"]).stem)
                write_json(Path(task["out"]), {**measured(0.0, 0), "identity": task["identity"]})
        return {job.name: {"code": 0} for job in jobs}

    monkeypatch.setattr(stages.pool, "run", do)
    stages._measure([(START, "start-seed0", 0)], "heldout", 40)
    return names


def test_what_another_judge_measured_is_measured_anew(
    begin_comparison: Begin, judge: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(begin_comparison("seeds=1", judge("1.0")), monkeypatch) == ["start-seed0"]
    assert asked(begin_comparison("seeds=1", judge("1.0")), monkeypatch) == []
    assert asked(begin_comparison("seeds=1", judge("2.0")), monkeypatch) == ["start-seed0"]


def test_settings_that_another_judge_chose_are_refused(begin_comparison: Begin, judge: Callable[[str], str]) -> None:
    begin_comparison("seeds=1", "tune=2", judge("1.0"))
    begin_comparison("seeds=1", "tune=2", judge("1.0"))
    with pytest.raises(UserError, match="other code and files of the judge, which chose the settings: give"):
        begin_comparison("seeds=1", "tune=2", judge("2.0"))


def test_files_that_the_words_name_are_part_of_what_is_compared(begin_comparison: Begin, tmp_path: Path) -> None:
    reward = tmp_path / "reward.yaml"
    words = ("seeds=1", "methods=[rft:samples=2,sft]", f"reward={reward}")
    reward.write_text("scorer: length\nmaximum: 60\n")
    begin_comparison(*words)
    begin_comparison(*words)
    reward.write_text("scorer: length\nmaximum: 30\n")
    with pytest.raises(UserError, match=r"other rft:samples=2\.reward\.maximum: give this one a name of its own"):
        begin_comparison(*words)


@pytest.mark.parametrize("value", ["float('nan')", "1 / 0"])
def test_a_judge_that_fails_does_so_before_anything_is_trained(
    value: str, begin_comparison: Begin, judge: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = begin_comparison("seeds=1", judge(value))
    task = {"judge": stages.contest.judge, "data": str(stages.contest.data("heldout"))}
    with pytest.raises(ScorerError):
        measuring.try_judge(task)

    def do(jobs: Sequence[Job]) -> Mapping[str, Any]:
        [job] = jobs  # and no training
        [asked] = json.loads(Path(job.command[-1]).read_text())
        Path(asked["out"]).with_suffix(".failed").write_text("NaN.")
        return {job.name: {"code": 1}}

    monkeypatch.setattr(stages.pool, "run", do)
    with pytest.raises(UserError, match="judge: NaN; correct it, or give another"):
        stages.run()


def test_a_judge_that_answers_is_asked_about_a_few(begin_comparison: Begin, judge: Callable[[str], str]) -> None:
    stages = begin_comparison("seeds=1", judge("1.0"))
    task = {"judge": stages.contest.judge, "data": str(stages.contest.data("heldout"))}
    assert measuring.try_judge(task) == {"scores": [[1.0, 1.0]] * 4}
