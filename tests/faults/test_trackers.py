"""W&B that cannot be reached, or stops answering: training goes on, the local log is complete, and the run ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import traps
from tests.faults.programs import Command
from tests.faults.records import differing, untidy
from tests.faults.wandb_server import Fault, WandbServer

Make = Callable[..., Command]
FAULTS: tuple[Fault, ...] = ("hang", "500", "refuse")


@pytest.fixture
def server() -> Iterator[WandbServer]:
    made = WandbServer()
    yield made
    made.close()


def environment(server: WandbServer) -> dict[str, str]:
    return {"WANDB_MODE": "online", "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40}


def soon(begun: str | None = None) -> None:
    """Two seconds of patience; a file says that training has begun, and the process waits for the fault."""
    import align.runs.wandb_run as module

    module._START, module._FINISH = (2, 2) if begun is None else (30, 2)
    if begun is not None:
        traps.at("align.training.trainer:_Run._step", 2, partial(_wait, Path(begun)))


def _wait(file: Path) -> None:
    import time

    file.touch()
    while file.exists():
        time.sleep(0.01)


def unaffected(command: Make, done: Command, tmp_path: Path) -> None:
    assert "Traceback" not in done.said, done.said
    assert command("dpo", "run_name=alone").start().wait() == 0
    alone, run = tmp_path / "runs" / "alone", tmp_path / "runs" / "run"
    assert differing(alone, run) == []
    assert untidy(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_not_there_at_the_start(fault: Fault, server: WandbServer, command: Make, tmp_path: Path) -> None:
    server.fail(fault)
    words = ("trackers=[wandb]", "wandb.mode=online")
    done = command("dpo", *words, prepare=soon, environment=environment(server))
    assert done.start().wait(300) == 0, done.said
    assert "W&B could not be reached" in done.said
    unaffected(command, done, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_gone_in_the_middle(fault: Fault, server: WandbServer, command: Make, tmp_path: Path) -> None:
    """The end of the run waits for it only so long, and says where what it lacks is kept."""
    begun = tmp_path / "begun"
    words: Any = ("dpo", "trackers=[wandb]", "wandb.mode=online")
    running = command(*words, prepare=partial(soon, str(begun)), environment=environment(server)).start()
    running.wait_until(begun.exists, 300)
    server.fail(fault)
    begun.unlink()
    assert running.wait(300) == 0, running.said
    assert re.search(
        r"W&B stopped accepting metrics \(no answer within 2 s; send it later with `wandb sync", running.said
    )
    unaffected(command, running, tmp_path)
