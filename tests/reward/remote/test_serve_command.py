"""The words of ``align serve-reward`` and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward.remote import server as module
from reward.remote.serve_command import main
from reward.remote.server import RewardServer


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
