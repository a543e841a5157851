from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.launch import execute as execution
from align.cli.launch.run import Run
from align.cli.main import main
from align.errors import UserError
from align.settings.config import RunConfig

pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunConfig]:
    """Runs that would have been done; their seed is what happens: 2 a user's mistake, 5 a bug, 143 a signal."""
    monkeypatch.chdir(tmp_path)
    done: list[RunConfig] = []

    def execute(run: Run) -> int:
        config = run.config
        done.append(config)
        if config.seed == 2:
            raise UserError("no such data.")
        if config.seed == 5:
            raise RuntimeError("a bug")
        return config.seed if config.seed > 100 else 0

    monkeypatch.setattr(execution, "execute", execute)
    return done


def test_each_combination_is_run_once(ran: list[RunConfig], configs: Path) -> None:
    assert main(["-m", "method=sft,dpo", "seed=0,1", "trainer.steps=3"], configs) == 0
    assert [(run.method, run.seed, run.trainer.steps) for run in ran] == [
        ("sft", 0, 3),
        ("sft", 1, 3),
        ("dpo", 0, 3),
        ("dpo", 1, 3),
    ]
    assert len({run.run_name for run in ran}) == 4


def test_nothing_is_left_in_the_working_folder(ran: list[RunConfig], configs: Path, tmp_path: Path) -> None:
    before = Path.cwd()
    assert main(["-m", "seed=0,1"], configs) == 0
    assert Path.cwd() == before
    assert list(tmp_path.iterdir()) == []
    assert len(ran) == 2


def test_settings_of_a_stage_may_be_typed_and_differ(ran: list[RunConfig], configs: Path) -> None:
    """Hydra knows no stages: its own composition gets only what differs."""
    stilts = ("recipe=stilts", "intermediate.data.train=world/demonstrations")
    assert main(["-m", *stilts, "intermediate.trainer.epochs=1,2", "seed=0,1"], configs) == 0
    first = [(run.trainer.epochs, run.seed) for run in ran if run.run_name == "1-intermediate"]
    assert first == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert len(ran) == 8
    ran.clear()
    assert main(["-m", "method=ppo", "reward.trainer.epochs=1,2"], configs) == 0
    assert [run.trainer.epochs for run in ran if run.run_name == "1-reward"] == [1, 2]


def test_runs_of_several_stages_get_folders_of_their_own(ran: list[RunConfig], configs: Path) -> None:
    assert main(["-m", "method=ppo", "method.beta=0.1,0.2"], configs) == 0
    names = ["ppo-world-world-seed0-beta=0.1", "ppo-world-world-seed0-beta=0.2"]
    assert sorted(folder.name for folder in Path("runs").iterdir()) == names
    assert [(run.run_name, run.settings.get("beta")) for run in ran] == [
        *(("1-reward", None), ("2-ppo", 0.1)),
        *(("1-reward", None), ("2-ppo", 0.2)),
    ]


def test_one_failed_run_is_named_and_the_others_happen(
    ran: list[RunConfig], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "seed=1,2,3"], configs) == 2
    assert [run.seed for run in ran] == [1, 2, 3]
    errors = capsys.readouterr().err
    assert "Run 2 of 3 failed: no such data." in errors
    assert "1 of 3 runs failed." in errors
    assert "Traceback" not in errors


def test_a_bug_in_one_run_is_shown_and_the_others_happen(
    ran: list[RunConfig], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "seed=5,1"], configs) == 1
    assert [run.seed for run in ran] == [5, 1]
    errors = capsys.readouterr().err
    assert "RuntimeError: a bug" in errors
    assert "Run 1 of 2 failed with exit code 1." in errors


def test_with_several_processes_a_bug_ends_all(
    ran: list[RunConfig], configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="1"):
        main(["-m", "seed=5,1"], configs)
    assert [run.seed for run in ran] == [5]


@pytest.mark.parametrize("code", [130, 143])
def test_a_signal_ends_the_multirun(code: int, ran: list[RunConfig], configs: Path) -> None:
    with pytest.raises(SystemExit, match=str(code)):
        main(["-m", f"seed=1,{code},3"], configs)
    assert [run.seed for run in ran] == [1, code]


@pytest.mark.parametrize(("seeds", "code", "failed"), [("2,5,1", 2, 2), ("1,5,2", 1, 2), ("141,2", 141, 2)])
def test_the_first_failure_decides_the_code_and_all_are_counted(
    seeds: str, code: int, failed: int, ran: list[RunConfig], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", f"seed={seeds}"], configs) == code
    assert len(ran) == seeds.count(",") + 1
    assert capsys.readouterr().err.splitlines()[-1] == f"{failed} of {len(ran)} runs failed."


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=sft,dpo", "method.beta=0.1,0.2"], "method.beta is not a setting of method=sft."),
        (["trainer.steps=3,0"], "trainer.steps must be at least 1, not 0."),
        (["seed=interval(1,3)"], "list the values, as in seed=1,2."),
        (["seed=1,2", "trackers=[wandb]", "wandb.mode=online"], "wandb.mode=online needs a key"),
        (["seed=1,2", "hydra/launcher=absent"], "hydra/launcher"),
    ],
)
def test_every_run_is_checked_before_the_first_begins(
    words: list[str],
    expected: str,
    ran: list[RunConfig],
    configs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["-m", *words], configs) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert errors.count("\n") == 1
    assert ran == []
