"""The distribution: what the wheel holds, and the command ``align`` where only the wheel is installed."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from align.cli.main import align, main
from align.cli.parse import groups

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("align", "methods", "reward")


def test_a_checkout_finds_the_configuration_beside_the_package() -> None:
    assert groups.find_configs() == ROOT / "configs"


def test_an_installed_package_finds_the_configuration_inside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "align" / "configs"
    inside.mkdir(parents=True)
    monkeypatch.setattr(groups, "__file__", str(tmp_path / "align" / "cli" / "parse" / "groups.py"))
    assert groups.find_configs() == inside


@pytest.mark.parametrize(("command", "option"), [("evaluate", "--best-of"), ("serve-reward", "--tls-cert")])
def test_the_first_word_may_be_another_command(
    command: str, option: str, configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([command, "--help"], configs)
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: align {command} ")
    assert option in said


def test_a_word_that_is_neither_command_nor_setting(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metod"], configs) == 2
    assert capsys.readouterr().err == "Error: 'metod' is not a setting: write key=value. Did you mean \"method=\"?\n"


def test_the_installed_command_reads_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["align", "--help"])
    assert align() == 0
    assert "Methods (method=…)" in capsys.readouterr().out


@pytest.fixture
def configs() -> Path:
    return ROOT / "configs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the source distribution, of a copy so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in (*PACKAGES, "configs", "scripts", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command ``align`` of an environment that has the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", str(wheel))
    run(sys.executable, "-m", "pip", "--python", str(python), *install, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder, but none of the editable installs in it.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin" / "align"


def run(*words: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_packages_with_their_files_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    ours = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    readmes = {f"{folder}/README.md" for folder in ("align/world", "reward")}
    configs = {f"align/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "configs").rglob("*.yaml")}
    assert packed == (ours - readmes) | configs


@pytest.mark.slow
def test_the_command_works_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    assert "Tuned for model=world with method=dpo" in run(str(command), "--help", cwd=tmp_path)
    assert "Dry run: nothing was trained" in run(str(command), "method=dpo", "dry_run=true", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    run(str(command), "method=dpo", "preset=smoke", "run_name=first", cwd=tmp_path)
    assert (tmp_path / "runs" / "first" / "evaluation.json").exists()
    measured = ("--data", "world/heldout", "--scorer", "true_reward", "--prompts", "4", "--max-new-tokens", "8")
    assert "true_reward" in run(str(command), "evaluate", "runs/first", *measured, cwd=tmp_path)


@pytest.mark.slow
def test_the_command_runs_the_installed_package(command: Path, tmp_path: Path) -> None:
    python = command.with_name("python")
    found = run(str(python), "-c", "import align, methods, reward; print(align.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(command.parents[1])
