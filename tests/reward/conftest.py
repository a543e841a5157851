"""Real servers on loopback: reward servers, and servers that misbehave in a way that a test writes down."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import uvicorn

from reward.remote.server import RewardServer


class Exchange(BaseHTTPRequestHandler):
    """One request; `body` is what came as JSON, `number` counts the requests of this server from 0."""

    body: Any
    number: int
    closing: threading.Event

    def answer(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.begin(status, kind, **{"Content-Length": str(len(data)), **headers})
        self.wfile.write(data)

    def begin(self, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


Behaviour = Callable[[Exchange], None]


class Misbehaving:
    """A server that answers POST as `behaviour` says; `requests` holds the bodies and `headers` theirs."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.closing = closing = threading.Event()
        outer = self

        class Handler(Exchange):
            def do_POST(self) -> None:
                self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.number, self.closing = len(outer.requests), closing
                outer.requests.append(self.body)
                outer.headers.append(dict(self.headers))
                try:
                    behaviour(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def misbehaving() -> Iterator[Callable[[Behaviour], Misbehaving]]:
    with ExitStack() as stack:

        def start(behaviour: Behaviour) -> Misbehaving:
            server = Misbehaving(behaviour)
            stack.callback(server.close)
            return server

        yield start


@contextmanager
def running(server: RewardServer) -> Generator[str, None, None]:
    uvicorn_server = uvicorn.Server(server.uvicorn_config())
    thread = threading.Thread(target=uvicorn_server.run)
    thread.start()
    while not uvicorn_server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"{'https' if server.tls_cert else 'http'}://127.0.0.1:{port}"
    finally:
        uvicorn_server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a reward server for a scorer; returns its address."""
    with ExitStack() as stack:
        yield lambda scorer, **settings: stack.enter_context(running(RewardServer(scorer=scorer, port=0, **settings)))


class Lengths:
    """A scorer whose scores are easy to work out: characters of the response, and of the column `answer`."""

    name = "lengths"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches = seconds, list[int]()
        self.calls: list[tuple[list[str], list[list[str]], dict[str, list[Any]]]] = []

    def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
        time.sleep(self.seconds)
        self.batches.append(sum(map(len, responses)))
        self.calls.append((list(prompts), [list(row) for row in responses], columns))
        extra = [len(text) for text in columns.get("answer", [""] * len(prompts))]
        return [[len(text) + 100 * extra[p] for text in row] for p, row in enumerate(responses)]


@pytest.fixture
def lengths() -> Callable[..., Lengths]:
    return Lengths
