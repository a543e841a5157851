"""A reward server that fails in the middle of PPO: the run ends with a checkpoint, no score is made up, it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.programs import Command
from tests.faults.records import differing, untidy
from tests.reward.conftest import Exchange, Misbehaving

Make = Callable[..., Command]


def scores(body: Any) -> dict[str, Any]:
    return {"id": body["id"], "scores": [[-float(len(set(text))) for text in row] for row in body["responses"]]}


def drip(exchange: Exchange) -> None:
    """10 GB, announced by nobody."""
    exchange.begin()
    while not exchange.closing.is_set():
        exchange.wfile.write(b" " * 2**16)


FAULTS: dict[str, Callable[[Exchange], None]] = {
    "slow": lambda _: time.sleep(2),
    "500": lambda exchange: exchange.answer({"error": "no"}, 500),
    "short list": lambda exchange: exchange.answer({"id": exchange.body["id"], "scores": []}),
    "NaN": lambda exchange: exchange.answer(
        b'{"id": "%s", "scores": %s}'
        % (exchange.body["id"].encode(), str([[float("nan")] * len(r) for r in exchange.body["responses"]]).encode())
    ),
    "string": lambda exchange: exchange.answer(
        {"id": exchange.body["id"], "scores": [["1"] * len(row) for row in exchange.body["responses"]]}
    ),
    "HTML": lambda exchange: exchange.answer(b"<html>", kind="text/html"),
    "10 GB": drip,
    "hung up": lambda exchange: exchange.connection.close(),
}
SHORT = {"500"}


class Server:
    """Answers rightly but for the requests between two numbers."""

    def __init__(self) -> None:
        self.fault: Callable[[Exchange], None] | None = None
        self.asked, self.fails_from = 0, 10**9
        self.server = Misbehaving(self.answer)

    def answer(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.fault is not None and self.asked >= self.fails_from:
            self.fault(exchange)
        else:
            exchange.answer(scores(exchange.body))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def reward_file(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("reward") / "server.yaml"
    file.write_text(
        f"scorer: http\nurl: {server.server.url}/score\ntimeout: 0.5\nretries: 1\nbackoff: 0.01\n", encoding="utf-8"
    )
    return f"reward={file}"


@pytest.mark.parametrize("name", [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in FAULTS])
def test_a_server_that_fails_in_the_middle(
    name: str, command: Make, server: Server, reward_file: str, tmp_path: Path
) -> None:
    more = (reward_file, "evaluation.scorer=repetition")
    server.fault = None
    assert command("ppo", *more, "run_name=whole").start().wait() == 0
    server.asked, server.fault, server.fails_from = 0, FAULTS[name], 2  # the second roll-out, at step 5
    failed = command("ppo", *more)
    code = failed.start().wait()
    assert (code, "Traceback" in failed.said) == (1, False), failed.said
    assert "was asked 2 times and gave no scores" in failed.said
    assert "Step 4 is saved." in failed.said
    server.fault = None
    again = command("ppo", *more, "if_exists=resume")
    assert again.start().wait() == 0, again.said
    whole, run = tmp_path / "runs" / "whole", tmp_path / "runs" / "run"
    assert differing(whole, run, checkpoints=1) == []
    assert untidy(run) == []
