"""Runs of today log the recorded names of metrics, and W&B's own file has all that their dashboards draw."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from align.cli.main import main
from align.cli.parse.groups import find_configs
from align.dashboard.logged import read_runs
from align.dashboard.panels import layout
from align.world import asset
from tests.offline_wandb import shown

LOGGED = json.loads((Path(__file__).parent / "logged_names.json").read_text())
RUNS = {
    **{
        f"method={name}": [name]
        for name in ("sft", "dpo", "simpo", "orpo", "cpo", "kto", "bco", "rrhf", "slic", "reward", "ranker")
    },
    **{f"method={name} reward=world": [name] for name in ("ppo", "rloo", "grpo")},
    "method=rft reward=world": ["candidates", "rft"],
    "method=slic method.samples=2 reward=world": ["ranked candidates", "slic on candidates"],
    "method=ppo": ["reward", "ppo by a reward model"],
}
"""Words of a command, and by which names the runs that it makes are recorded."""


def test_every_record_is_compared_with_a_run() -> None:
    assert {name for names in RUNS.values() for name in names} == set(LOGGED)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A little of the world as files, as words of a command."""
    folder = tmp_path_factory.mktemp("world")
    for part, source, count in (("train", "pairs", 60), ("heldout", "heldout", 12)):
        with gzip.open(asset(source), "rt", encoding="utf-8") as rows:
            (folder / f"{part}.jsonl").write_text("".join(islice(rows, count)), encoding="utf-8")
    return [f"data.{part}={folder / part}.jsonl" for part in ("train", "heldout")]


@pytest.mark.slow
@pytest.mark.parametrize("words", RUNS)
def test_what_a_run_logs_is_what_is_recorded_and_drawn(
    words: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    short = ["preset=smoke", "trainer.eval_steps=2", "evaluation.scorer=true_reward", "trackers=[wandb]"]
    place = [f"output_root={tmp_path}", "run_name=mine"]
    assert main([*words.split(), *data, *short, *place], find_configs()) == 0
    runs = read_runs([tmp_path / "mine"])
    assert [sorted(run.names) for run in runs] == [LOGGED[name] for name in RUNS[words]]
    for run in runs:
        there = shown(run.folder)
        assert {
            metric for section in layout(run.names) for panel in section.panels for metric in panel.metrics
        } <= there
        assert {f"{table}._type" for table in run.tables} <= there
