"""Panels of a dashboard: every metric of every method is shown or left out for a reason, and no panel is empty."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from align.dashboard.panels import OTHER, SECTIONS, UNSHOWN, Panel, Section, layout

LOGGED: dict[str, list[str]] = json.loads((Path(__file__).parent / "logged_names.json").read_text())
"""By run: names that short runs of each method logged; test_logged.py compares them with those of today."""

MORE = ["evaluation/distinct_2", "train/loss/mixed", "evaluation/length", "rollout/scores/my scorer"]
"""Names that short runs do not log: diversity needs many samples, PPO-ptx a setting."""


def shown(names: list[str]) -> list[Panel]:
    return [panel for section in layout(names) for panel in section.panels]


@pytest.mark.parametrize("run", LOGGED)
def test_every_metric_has_a_panel_or_a_reason_and_every_panel_its_metrics(run: str) -> None:
    names = LOGGED[run]
    metrics = {metric for panel in shown(names) for metric in panel.metrics}
    assert metrics <= set(names)
    without = set(names) - metrics
    assert not [name for name in without if not any(fnmatchcase(name, pattern) for pattern in UNSHOWN)]
    assert OTHER not in {section.title for section in layout(names)}


@pytest.mark.parametrize("run", LOGGED)
def test_a_metric_is_drawn_over_the_steps_once(run: str) -> None:
    drawn = [metric for panel in shown(LOGGED[run]) if panel.kind != "scatter" for metric in panel.metrics]
    assert len(drawn) == len(set(drawn))


def test_all_that_the_table_names_is_logged_by_some_method() -> None:
    """A panel, or a reason, for a metric that nobody logs is a name that has gone."""
    every = {name for names in LOGGED.values() for name in names} | set(MORE)
    patterns = [metric for section in SECTIONS for panel in section.panels for metric in panel.metrics]
    assert not [pattern for pattern in (*patterns, *UNSHOWN) if not any(fnmatchcase(name, pattern) for name in every)]


def test_reward_over_kl_is_a_chart_for_each_score() -> None:
    names = ["evaluation/kl", "evaluation/a", "evaluation/b", "evaluation/response_length"]
    charts = [panel.metrics for panel in shown(names) if panel.kind == "scatter"]
    assert charts == [("evaluation/kl", "evaluation/a"), ("evaluation/kl", "evaluation/b")]
    assert not [panel for panel in shown(names[1:]) if panel.kind == "scatter"]


def test_a_metric_of_another_package_gets_a_panel_of_its_own() -> None:
    assert layout(["train/mine", "train/epoch"]) == [Section(OTHER, (Panel("train/mine", ("train/mine",)),))]


def test_a_name_that_a_panel_names_whole_is_in_no_pattern() -> None:
    by_title = {panel.title: panel.metrics for panel in shown(["evaluation/x", "evaluation/response_length"])}
    assert by_title == {"Scores": ("evaluation/x",), "Tokens of a response": ("evaluation/response_length",)}
