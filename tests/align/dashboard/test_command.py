"""The command ``align dashboard``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli import dashboard
from align.dashboard import spec
from tests.align.dashboard.conftest import MakeRun

# The models of wandb-workspaces are made with pydantic 1's decorators.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_without_a_key_the_specification_is_written(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("wandb_workspaces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dashboard, "has_wandb_key", lambda: False)
    assert dashboard.main([str(make_run("one"))]) == 0
    assert set(json.loads((tmp_path / "dashboard.json").read_text())) == {"workspace", "report"}
    assert "`wandb login`" in capsys.readouterr().out
    assert dashboard.main([str(tmp_path / "one"), "--json", "elsewhere/x.json"]) == 2
    assert "elsewhere/x.json cannot be written" in capsys.readouterr().err


def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spec, "find_spec", lambda _: None)
    assert dashboard.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install wandb-workspaces")
    monkeypatch.setattr(spec, "find_spec", lambda _: object())
    assert dashboard.main([str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
