"""Arms are runs that depend on their words, shared by all experiments, trained after what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import experiment as command
import pytest
from experiments.plan import Experiment
from experiments.running import Runner

from align.cli.compare.jobs import do_tasks
from align.settings.type_checks import build
from align.system.files import read_json, write_json

SETTINGS: dict[str, Any] = {
    "title": "Two",
    "claims": [1],
    "published": "p",
    "source": "s",
    "prediction": "q",
    "shared": ["method=sft", "model=world-base", "data={data.train}", "trainer.steps=2", "trainer.batch_size=4"],
    "data": {"train": {"make": "demonstrations", "n": 16}},
    "measures": {"seen": {"prompts": {"make": "prompts", "n": 3}, "max_new_tokens": 8, "loss": True}},
    "arms": {
        "second": {"words": ["model.start={final.first}"]},
        "first": {"words": ["trainer.learning_rate=1e-3"], "helper": True},
        "start": {},
        "few": {"shots": 2},
        "best": {"best_of": 2},
    },
    "parts": [{"says": "x", "contrast": {"second": 1.0, "start": -1.0}, "of": "seen"}],
}


def runner(folder: Path, name: str = "one", **more: Any) -> Runner:
    return Runner(name, build(Experiment, SETTINGS | more), folder, workers=1)


def test_an_arm_comes_after_what_it_needs(tmp_path: Path) -> None:
    made = runner(tmp_path)
    assert [level for level in made._levels(made.experiment.all_arms) if level] == [["first"], ["second"]]  # pyright: ignore[reportPrivateUsage]


def test_the_name_of_a_run_depends_on_all_that_it_is_made_of_and_on_nothing_else(tmp_path: Path) -> None:
    first = runner(tmp_path).final("second", 0)
    assert runner(tmp_path, "another", title="Other").final("second", 0) == first
    assert runner(tmp_path).final("second", 1) != first
    other_data = {"train": {"make": "demonstrations", "n": 17}}
    assert runner(tmp_path, data=other_data).final("second", 0) != first
    arms = SETTINGS["arms"] | {"first": {"words": ["trainer.learning_rate=2e-3"], "helper": True}}
    assert runner(tmp_path, arms=arms).final("second", 0) != first  # what it begins from is another
    assert runner(tmp_path, arms=arms).final("start", 0) == runner(tmp_path).final("start", 0)


def test_a_later_word_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    arms = SETTINGS["arms"] | {"first": {"words": ["trainer.steps=3"], "helper": True, "offset": 1000}}
    run = runner(tmp_path, arms=arms)._run("first", 2)  # pyright: ignore[reportPrivateUsage]
    assert [word for word in run.words if word.startswith(("trainer.steps", "seed"))] == [
        "trainer.steps=3",
        "seed=1002",
    ]


def test_what_is_to_be_measured_is_a_task(tmp_path: Path) -> None:
    """As the processes that measure take it."""
    made = runner(tmp_path)
    task = made._task("start", made.experiment.all_arms["start"], 0)  # pyright: ignore[reportPrivateUsage]
    write_json(tmp_path / "tasks.json", [task])
    Path(task["out"]).parent.mkdir()
    assert do_tasks(tmp_path / "tasks.json", lambda given: {"seen": given["seed"]}) == 0
    assert read_json(Path(task["out"]))["seen"] == 0


@pytest.mark.slow
def test_an_experiment_from_its_file_to_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    file = tmp_path / "two.yaml"
    settings = SETTINGS | {"seeds": 2}
    settings["measures"] = {"seen": {**SETTINGS["measures"]["seen"], "scorers": ["true_reward", "true_reward"]}}
    settings["arms"] = {name: arm for name, arm in SETTINGS["arms"].items() if name != "best"}
    file.write_text(json.dumps(settings | {"measures": SETTINGS["measures"]} | {"arms": settings["arms"]}))
    words = [str(file), "--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert command.main(words) == 0
    found = read_json(tmp_path / "results" / "two.json")
    assert found["verdict"] in ("reproduced", "not reproduced", "cannot be told here")
    assert set(found["arms"]) == {"second", "start", "few"}
    assert found["arms"]["second"]["measured"]["seen.loss"]["runs"] == 2
    assert (tmp_path / "results" / "two.png").stat().st_size > 5000
    assert "Verdict: " in capsys.readouterr().out
    measured = sorted((tmp_path / "runs" / "measured").iterdir())
    times = [path.stat().st_mtime for path in measured]
    assert command.main(words) == 0  # nothing is done again
    assert [path.stat().st_mtime for path in measured] == times
    assert read_json(tmp_path / "results" / "two.json")["parts"] == found["parts"]


def test_an_unknown_experiment_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["lora_rnk"]) == 2
    assert 'Did you mean "lora_rank"?' in capsys.readouterr().err
