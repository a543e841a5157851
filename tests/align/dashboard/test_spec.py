"""Workspace and report as W&B is sent them. After a change that is meant, write the snapshot anew as it says below."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from align.dashboard import spec
from align.dashboard.logged import Logged, read_runs
from align.errors import UserError
from tests.align.dashboard.conftest import MakeRun

# The models of wandb-workspaces are made with pydantic 1's decorators.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

SNAPSHOT = Path(__file__).with_name("dashboard.json")


@pytest.fixture
def runs(make_run: MakeRun) -> list[Logged]:
    pytest.importorskip("wandb_workspaces")
    return read_runs([make_run("one", group="dpo"), make_run("two", run_id="r2", group="rlhf")])


def specification(runs: list[Logged]) -> dict[str, Any]:
    return {
        name: spec.as_json(make(runs, "me")) for name, make in (("workspace", spec.workspace), ("report", spec.report))
    }


def test_the_specification_is_the_one_that_was_looked_at(runs: list[Logged]) -> None:
    """``WRITE_SNAPSHOT=1 pytest tests/align/dashboard/test_spec.py`` writes it."""
    found = json.loads(json.dumps(specification(runs)))
    if os.environ.get("WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_charts_run_over_the_step_and_hold_nothing_that_was_not_logged(runs: list[Logged]) -> None:
    sections = specification(runs)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {line["xAxis"] for line in lines} == {"step"}
    drawn = {metric for panel in panels for metric in panel["config"].get("metrics", ())}
    assert drawn <= runs[0].names
    assert {"train/loss", "evaluation/quality", "result/win_rate/low"} <= drawn


def test_the_answers_are_tables(runs: list[Logged]) -> None:
    sections = specification(runs)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    (samples,) = [section for section in sections if section["name"] == "Samples"]
    assert ["before_and_after" in json.dumps(panel) for panel in samples["panels"]] == [True, False]


def test_groups_are_compared_where_there_are_several(runs: list[Logged]) -> None:
    names = [
        section["name"]
        for section in specification(runs)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    ]
    assert names[-1] == spec.BY_GROUP
    alone = spec.as_json(spec.workspace(runs[:1], "me"))["spec"]["section"]["panelBankConfig"]["sections"]
    assert spec.BY_GROUP not in [section["name"] for section in alone]


def test_both_show_these_runs_alone(runs: list[Logged]) -> None:
    for made in specification(runs).values():
        assert '["r1", "r2"]' in json.dumps(made)


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "find_spec", lambda _: None)
    with pytest.raises(UserError) as error:
        spec.require_library()
    assert str(error.value).endswith("pip install wandb-workspaces")
