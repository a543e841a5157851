"""The folder of a run: created once, described whole, and without secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.errors import UserError
from align.runs import run_folder
from align.runs.run_folder import begin, create, environment, is_run, package_versions, read_inputs
from align.system.redaction import redact


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"api_key": "x", "apikey": "x", "API_KEY": "x"}, {"api_key": "***", "apikey": "***", "API_KEY": "***"}),
        ({"hf_token": "x", "secret": "x", "password": "x"}, {"hf_token": "***", "secret": "***", "password": "***"}),
        ({"credential": "x", "credentials": ["x"]}, {"credential": "***", "credentials": "***"}),
        ({"max_new_tokens": 8, "tokenizer": "a", "token_env": "NAME"}, None),
        ({"api_key": None, "token": ""}, None),
        ({"a": [{"token": "x"}, ({"password": "x"},)]}, {"a": [{"token": "***"}, [{"password": "***"}]]}),
        ("https://me:word@host/x and http://word@host", "https://***@host/x and http://***@host"),
        ("me@host, https://host/a@b", None),
        (3, None),
    ],
)
def test_secrets_are_known_by_their_keys_and_in_addresses(value: Any, shown: Any) -> None:
    assert redact(value) == (value if shown is None else shown)


def test_a_command_is_kept_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run.py", "reward.api_key=word", "trainer.tokens_per_microbatch=8", "url=http://me:word@host", "a=b c"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")
    begin(tmp_path / "run", "new", {"seed": 0})
    assert (tmp_path / "run" / "command.txt").read_text() == (
        "python3 run.py reward.api_key=*** trainer.tokens_per_microbatch=8 url=http://***@host 'a=b c'\n"
    )


def test_a_run_is_described_with_what_it_depends_on(tmp_path: Path) -> None:
    folder = begin(
        tmp_path / "runs" / "run", "new", {"seed": 3, "token": "word"}, {"data": "sha256:1", "token": "word"}
    )
    assert folder == tmp_path / "runs" / "run"
    assert OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")) == {"seed": 3, "token": "***"}
    assert read_inputs(folder) == {"data": "sha256:1", "token": "***"}
    assert json.loads((folder / "environment.json").read_text()) == environment()
    assert set(environment()) == {"python", "platform", "cpus", "packages"}
    assert environment()["cpus"] == os.cpu_count()


def test_versions_are_those_installed() -> None:
    from importlib.metadata import version

    assert package_versions(["torch", "no-such-package"]) == {
        "torch": version("torch"),
        "no-such-package": "not installed",
    }
    assert "not installed" not in [environment()["packages"][name] for name in ("torch", "transformers", "peft")]


def test_the_configuration_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It marks the folder as a run: whatever stops the description before leaves none."""
    files = ["inputs.json", "command.txt", "environment.json"]
    folder = tmp_path / "run"

    def to_yaml(_: Any) -> str:
        assert sorted(path.name for path in folder.iterdir()) == sorted(files)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OmegaConf, "to_yaml", to_yaml)
        with pytest.raises(KeyboardInterrupt):
            begin(folder, "new", {"seed": 0}, {"data": "x"})
    assert not is_run(folder)
    assert read_inputs(folder) is None


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
@pytest.mark.parametrize("left", [["inputs.json"], ["inputs.json", "command.txt", ".partial-environment.json"]])
def test_a_run_killed_while_its_folder_was_made_can_be_begun_there(left: Any, if_exists: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("cut sho")
    assert begin(folder, if_exists, {"seed": 1}, {"data": "x"}) == folder
    assert is_run(folder)
    assert read_inputs(folder) == {"data": "x"}
    assert json.loads((folder / "environment.json").read_text())["cpus"]


def test_files_of_somebody_else_are_not_touched(tmp_path: Path) -> None:
    for name in ("inputs.json", "thesis.txt"):
        (tmp_path / name).write_text("mine")
    for if_exists in ("resume", "overwrite"):
        with pytest.raises(UserError, match="holds files but no run"):
            begin(tmp_path, if_exists, {"seed": 1}, {"data": "x"})
    assert (tmp_path / "inputs.json").read_text() == "mine"


def test_a_resumed_run_keeps_its_description(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", "resume", {"seed": 0}, {"data": "first"})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert begin(tmp_path / "run", "resume", {"seed": 1}, {"data": "second"}) == folder
    assert {path: path.read_bytes() for path in before} == before
    begin(tmp_path / "run", "overwrite", {"seed": 1}, {"data": "second"})
    assert read_inputs(folder) == {"data": "second"}


def test_a_run_without_inputs_has_none(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", "new", {"seed": 0})
    assert is_run(folder)
    assert read_inputs(folder) is None
    assert not is_run(tmp_path)


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_an_empty_folder_may_become_a_run_and_a_missing_one_is_made(if_exists: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty", if_exists) == tmp_path / "empty"
    assert create(tmp_path / "a" / "b", if_exists).is_dir()


def test_new_folders_are_counted_from_two(tmp_path: Path) -> None:
    (tmp_path / "run-3").mkdir()
    assert [create(tmp_path / "run", "new").name for _ in range(3)] == ["run", "run-2", "run-4"]


def test_resume_keeps_what_is_there(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", "new", {"seed": 0})
    (folder / "metrics.jsonl").write_text("x")
    assert create(folder, "resume") == folder
    assert (folder / "metrics.jsonl").read_text() == "x"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be created \(File exists\); choose another output_root"):
        begin(tmp_path / "file" / "run", "new", {})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    with pytest.raises(UserError, match=r"No space left on device"):
        begin(tmp_path / "run", "new", {})


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_a_run_that_goes_on_is_left_alone(if_exists: run_folder.IfExists, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", "new", {"seed": 0})
    with run_folder.alone(folder):
        with pytest.raises(UserError, match=f"run is in use by process {os.getpid()}; wait for its end or stop it, or"):
            begin(folder, if_exists, {"seed": 1})
        assert begin(folder, "new", {"seed": 1}) == tmp_path / "run-2"
    assert begin(folder, if_exists, {"seed": 1}) == folder


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_a_folder_that_a_kill_left_half_made_is_begun_again(tmp_path: Path, if_exists: Any) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("inputs.json", "command.txt", ".partial-environment.json"):
        (folder / name).write_text("{")
    assert begin(folder, if_exists, {"seed": 0}, {"seed": 0}) == folder
    assert read_inputs(folder) == {"seed": 0}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "command.txt").write_text("")
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="holds files but no run"):
        begin(tmp_path / "other", if_exists, {"seed": 0})


class Rank:
    """One of two processes on two machines."""

    world_size = 2

    def __init__(self, told: tuple[str, int] | None) -> None:
        self.told = told
        """Told by the first process; None: this is the first."""

    def on_first(self, make: Callable[[], Any]) -> Any:
        return make() if self.told is None else self.told

    def gather(self, value: Any) -> list[Any]:
        return [value, (True, "other")] if self.told is None else [(True, "first"), value]


def test_machines_without_a_common_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_DELAY", 0.1)
    monkeypatch.setattr(run_folder.socket, "gethostname", lambda: "second")
    folder = tmp_path / "not" / "yet" / "run"
    (tmp_path / ".align-x").touch()
    run_folder.require_one_disk(folder, Rank((".align-x", 2)))  # pyright: ignore[reportArgumentType]
    run_folder.require_one_disk(folder, Rank(None))  # pyright: ignore[reportArgumentType]
    assert [file.name for file in tmp_path.iterdir()] == [".align-x"]
    with pytest.raises(UserError, match=r"1 of 2 \(first: process 1; on second\) do not see what process 0 on first w"):
        run_folder.require_one_disk(folder, Rank((".align-y", 2)))  # pyright: ignore[reportArgumentType]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give an output_root on a disk that all machines mount at the same place"):
        run_folder.require_one_disk(Path("runs/x"), Rank((".align-y", 99)))  # pyright: ignore[reportArgumentType]
