from __future__ import annotations

from pathlib import Path

import pytest
from make_world import main
from world_making.stages import STAGES


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in STAGES)


def test_unknown_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pear", "--out", str(tmp_path)])
    assert "unknown stage 'pear'; there are tokenizer, base," in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
