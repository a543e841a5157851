"""The words of ``align serve-reward``, and how its process stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from align.errors import ScorerError
from reward.remote import server as module
from reward.remote.serve_command import main
from reward.remote.server import RewardServer
from tests.reward.remote.reward_clients import client


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    class Server:
        ends: Any = None

        def __init__(self, **settings: Any) -> None:
            made.append({**settings, "scorer": settings["scorer"].name})

        def run(self) -> None:
            if Server.ends is not None:
                raise Server.ends

    monkeypatch.setattr(module, "RewardServer", Server)
    made.append(Server)
    return made


def test_the_words_become_settings(served: list[Any], tmp_path: Path) -> None:
    assert main(["repetition"]) == 0
    file = tmp_path / "mine.yaml"
    file.write_text("{scorer: length, maximum: 3, name: mine}")
    words = ["--host", "h", "--port", "1", "--token-env", "T", "--tls-cert", "c", "--tls-key", "k", "--batch-size", "2"]
    assert main([str(file), *words]) == 0
    plain = {"scorer": "repetition", "host": "127.0.0.1", "port": 8000, "batch_size": 64}
    assert served[1:] == [
        {**plain, "token_env": None, "tls_cert": None, "tls_key": None},
        {"scorer": "mine", "host": "h", "port": 1, "token_env": "T", "tls_cert": "c", "tls_key": "k", "batch_size": 2},
    ]


def test_ctrl_c_and_mistakes_have_their_codes(served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    served[0].ends = KeyboardInterrupt()
    assert main(["repetition"]) == 130
    assert main(["repetitoin"]) == 2
    assert 'Did you mean "repetition"?' in capsys.readouterr().err


def test_the_server_has_the_defaults_of_the_command() -> None:
    server = RewardServer(scorer=object())  # pyright: ignore[reportArgumentType]
    assert (server.host, server.port, server.batch_size) == ("127.0.0.1", 8000, 64)
    assert (server.token_env, server.tls_cert, server.tls_key) == (None, None, None)
    assert (server.wait, server.max_request_bytes) == (0.005, 2**24)
    config = server.uvicorn_config()
    assert (config.host, config.port, config.limit_concurrency, config.timeout_graceful_shutdown) == (
        *("127.0.0.1", 8000),
        *(64, 30),
    )


ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def process(*command: str) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """A server in a process of its own, and the address that it says it has."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell ignores it
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stderr is not None
        try:
            said = ""
            for line in started.stderr:
                said += line
                if address := re.search(r"https?://127\.0\.0\.1:\d+", line):
                    yield started, address[0]
                    break
            else:
                pytest.fail(said)
        finally:
            started.kill()
            signal.signal(signal.SIGINT, before)


SLOW = """
import time
from reward.remote.server import RewardServer

class Slow:
    name = "slow"

    def score(self, prompts, responses, **columns):
        print("scoring", flush=True)
        time.sleep(0.7)
        return [[1.0]] * len(prompts)

RewardServer(scorer=Slow(), port=0).run()
"""


def test_sigterm_lets_requests_under_way_finish() -> None:
    with process("-c", SLOW) as (server, url), ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client(f"{url}/score").score, ["p"], [["a"]])
        assert server.stdout is not None
        assert server.stdout.readline() == "scoring\n"
        server.send_signal(signal.SIGTERM)
        assert under_way.result(10) == [[1.0]]
        assert server.wait(10) == -signal.SIGTERM
        with pytest.raises(ScorerError):
            client(f"{url}/score").score(["p"], [["a"]])


def test_command_serves_and_stops_on_ctrl_c() -> None:
    from align.world import TrueReward, heldout_prompts

    (row,) = heldout_prompts()[:1]
    with process("scripts/serve_reward.py", "true_reward", "--port", "0") as (server, url):
        assert httpx2.get(f"{url}/health").json() == {"status": "ok", "scorer": "true_reward"}
        asked = [row["prompt"]], [["nonsense", row["answer"]]]
        found = client(f"{url}/score").score(*asked, answer=[row["answer"]])
        assert found == TrueReward().score(*asked, answer=[row["answer"]])
        assert found[0][0] != found[0][1]
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 130


def test_command_answers_mistakes_in_one_sentence() -> None:
    command = [sys.executable, "scripts/serve_reward.py", "true_reward", "--host", "0.0.0.0"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: host='0.0.0.0' can be reached from other machines")
    assert done.stderr.count("\n") == 1
