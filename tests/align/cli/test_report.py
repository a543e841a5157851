"""``align report``: the page of a run again, of several runs beside them, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.report import main
from align.runs.run_folder import begin


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [begin(tmp_path / name, "new", {"beta": beta}) for name, beta in (("a", 0.1), ("b", 0.2))]


def test_the_page_of_a_run_is_written_again(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = runs[0] / "report.html"
    for _ in range(2):
        assert main([str(runs[0])]) == 0
        assert capsys.readouterr().out == f"Report: {page}\n"
        assert "This run is not finished" in page.read_text()


def test_several_runs_get_a_page_beside_them(runs: list[Path], tmp_path: Path) -> None:
    assert main([*map(str, runs)]) == 0
    assert "a, b side by side" in (tmp_path / "report-a-b.html").read_text()
    assert main([*map(str, runs), "--out", str(tmp_path / "mine.html")]) == 0
    assert (tmp_path / "mine.html").exists()


def test_mistakes_are_said(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not the folder of a run: config.yaml is missing." in capsys.readouterr().err
    assert main([str(runs[0]), str(runs[0])]) == 2
    assert "two of these runs are named a; give runs with names that differ." in capsys.readouterr().err
    assert main([str(runs[0]), "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written (No such file or directory); give --out=FILE." in capsys.readouterr().err
