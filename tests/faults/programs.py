"""The command in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.charts import leave_out_charts
from tests.forked import ROOT, Forked


class Command(Forked):
    """``run.py`` with these words in a folder.

    ``prepare`` is called first in its process: it sets limits, or lays a trap. ``charts``: draw curves too.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        prepare: Callable[[], Any] | None = None,
        environment: Mapping[str, str] | None = None,
        charts: bool = False,
    ) -> None:
        super().__init__(run_command, list(words), folder, prepare, charts, environment=environment)


def run_command(words: list[str], folder: Path, prepare: Callable[[], Any] | None = None, charts: bool = False) -> None:
    """Do what ``run.py`` with these words does in a folder."""
    from align.cli.main import main

    os.chdir(folder)
    sys.argv = [str(ROOT / "scripts" / "run.py"), *words]
    if not charts:
        leave_out_charts(pytest.MonkeyPatch())
    if prepare is not None:
        prepare()
    raise SystemExit(main(words, ROOT / "configs"))
