"""The tests of `on_device.py`, in a process that has a pretend accelerator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("on_device.py")


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_a_pretend_accelerator(chosen: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "-m", chosen, str(TESTS)]
    done = subprocess.run(command, cwd=TESTS.parents[2], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
