"""Processes that do not find each other end in a sentence; those that do wait long for each other afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.system import meeting as module
from align.system.meeting import meet

ROOT = Path(__file__).resolve().parents[3]
REMEDY = (
    r"; start the command on every machine, with the address .*--master-addr.*--main_process_ip.*--machine_rank\)\.$"
)
SCRIPT = """
import sys
from datetime import timedelta
from pathlib import Path
from align.cli.main import main
from align.system import meeting
meeting._MEETING = timedelta(seconds=2)
sys.exit(main(["method=dpo", "preset=smoke"], Path({configs!r})))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment(rank: int, host: str, port: int) -> dict[str, str]:
    place = {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", **place}


@pytest.mark.parametrize(
    ("rank", "host", "said"),
    [
        (1, "127.0.0.1", r"process 1 did not reach the first one at 127\.0\.0\.1:\d+ within .* \(Connection refused\)"),
        (
            1,
            "nowhere.invalid",
            r"process 1 did not reach the first one at nowhere\.invalid:\d+ within .* \(.*(ame|DNS).*\)",
        ),
        (0, "127.0.0.1", r"process 0 did not meet all others at 127\.0\.0\.1:\d+ within .* \(.*1/2 clients joined\)"),
    ],
)
def test_a_meeting_that_fails_ends_in_a_sentence(
    rank: int, host: str, said: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEETING", timedelta(seconds=1))
    for name, value in environment(rank, host, port).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said + REMEDY):
        meet()


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_one_process_meets_nobody(missing: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(1, "nowhere.invalid", port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    assert meet() == {}
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv(missing, "1")
    assert meet() == {}


def test_the_command_says_it_where_it_was_typed(port: int, tmp_path: Path) -> None:
    """The first process, which prints for all, cannot hear of it."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(configs=str(ROOT / "configs"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment(1, "127.0.0.1", port)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Process 1: Error: process 1 did not reach the first one at 127.0.0.1:"), done.stderr
    assert done.stderr.count("\n") == 1


def test_who_has_met_waits_long(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own time counts in the first collective calls, to which a process may come late."""
    asked: list[Any] = []

    class Store:
        def set_timeout(self, patience: timedelta) -> None:
            asked.append(patience)

        def set(self, *pair: str) -> None:
            asked.append(pair)

        def wait(self, keys: list[str], patience: timedelta) -> None:
            asked.append((keys, patience))

    store = Store()
    monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    for name, value in environment(0, "127.0.0.1", port).items():
        monkeypatch.setenv(name, value)
    assert meet() == {"store": store, "rank": 0, "world_size": 2}
    both = ["align/here/0", "align/here/1"]
    assert asked == [("align/here/0", "1"), (both, timedelta(minutes=10)), timedelta(days=7)]
