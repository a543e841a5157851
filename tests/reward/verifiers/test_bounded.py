from __future__ import annotations

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from align.errors import UserError
from reward.verdict import Verdict
from reward.verifiers import bounded
from reward.verifiers.bounded import judge


def child_of(kind: bounded.Kind) -> int:
    process = bounded._child(kind)._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    return process.pid


def test_a_killed_child_is_a_zero_with_a_reason_and_is_replaced() -> None:
    assert judge("regex", "a", "a", "part").score == 1
    os.kill(child_of("regex"), signal.SIGKILL)
    verdict = judge("regex", "a", "a", "part")
    assert (verdict.score, "died" in verdict.reason) == (0, True)
    assert judge("regex", "a", "a", "part").score == 1


def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge("regex", "a", "a", "part").score == 1
    hanging = child_of("regex")
    os.kill(hanging, signal.SIGSTOP)
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    begin = time.monotonic()
    verdict = judge("regex", "a", "a", "part")
    assert time.monotonic() - begin < 5
    assert (verdict.score, "seconds" in verdict.reason) == (0, True)
    assert not Path(f"/proc/{hanging}").exists()
    monkeypatch.undo()
    assert judge("regex", "a", "a", "part").score == 1


def test_the_child_has_no_secrets_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge("regex", "a", "a", "part").score == 1
    os.kill(child_of("regex"), signal.SIGKILL)
    judge("regex", "a", "a", "part")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert judge("regex", "a", "a", "part").score == 1
    here = Path(f"/proc/{child_of('regex')}")
    assert b"secret" not in (here / "environ").read_bytes()
    (limit,) = [line for line in (here / "limits").read_text().splitlines() if line.startswith("Max address space")]
    assert limit.split()[3] == str(2 << 30)


def test_threads_do_not_mix_their_answers() -> None:
    scores: dict[int, float] = {}

    def ask(number: int) -> None:
        for _ in range(20):
            scores[number] = judge("regex", "a" if number % 2 else "b", "a", "part").score

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {number: number % 2 for number in range(6)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, for processes with threads
def test_a_forked_process_starts_a_child_of_its_own() -> None:
    assert judge("regex", "a", "a", "part").score == 1
    ours = child_of("regex")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        good = judge("regex", "a", "a", "part").score == 1 and child_of("regex") != ours
        os.kill(child_of("regex"), signal.SIGKILL)
        os.write(write, b"good" if good else b"bad")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 4) == b"good"
    os.close(read)
    os.close(write)
    assert child_of("regex") == ours
    assert judge("regex", "a", "a", "part").score == 1


def test_a_reference_of_a_schema_is_not_fetched_and_is_the_users_error() -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reference = f'{{"$ref": "http://127.0.0.1:{server.server_port}/schema.json"}}'
        with pytest.raises(UserError, match="schema"):
            judge("schema", reference, "{}")
        server.shutdown()
    assert asked == []


def test_a_child_that_does_not_start_is_an_error_and_not_a_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit(1)")
    child = bounded._Child("regex")  # pyright: ignore[reportPrivateUsage]
    with monkeypatch.context() as patch:
        patch.setattr(bounded, "_WORKER", tmp_path / "worker.py")
        with pytest.raises(RuntimeError, match="does not start; run it by hand to see why"):
            child.ask(("a", "a", "part"))
    assert child.ask(("a", "a", "part")).score == 1
    child.stop()
    child.stop()  # there is none any more


def test_the_child_is_told_its_kind_and_imports_nothing_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the current folder nor from PYTHONPATH; of the environment it has the two kept variables."""
    (tmp_path / "worker.py").write_text(
        "import json, os, sys\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    names = sorted(set(os.environ) - {'LC_CTYPE'})\n"
        "    print(json.dumps([0.5, f'{sys.argv[1:]} {sys.flags.isolated} {names} {json.loads(line)}']), flush=True)\n"
    )
    monkeypatch.setattr(bounded, "_WORKER", tmp_path / "worker.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    child = bounded._Child("schema")  # pyright: ignore[reportPrivateUsage]
    verdict = child.ask(("a", "b"))
    child.stop()
    assert verdict == Verdict(0.5, "['schema'] 1 ['LD_LIBRARY_PATH', 'PATH'] ['a', 'b']")


def test_the_child_answers_what_each_kind_asks() -> None:
    """Score and reason; without a score where the pattern or schema is at fault."""
    from reward.verifiers import worker

    regex = worker._KINDS["regex"]()  # pyright: ignore[reportPrivateUsage]
    asked = [
        regex("b+", text, where) for text, where in (("abb", "part"), ("abb", "full"), ("bb", "full"), ("a", "part"))
    ]
    assert asked == [
        (1.0, "the pattern matches"),
        (0.0, "the pattern does not match"),
        (1.0, "the pattern matches"),
        (0.0, "the pattern does not match"),
    ]
    schema = worker._KINDS["schema"]()  # pyright: ignore[reportPrivateUsage]
    kind = '{"type": "integer"}'
    assert schema(kind, "1") == (1.0, "valid")
    assert schema(kind, '"1"') == (0.0, "'1' is not of type 'integer'")
    assert schema(kind, "NaN")[0] == schema(kind, "{")[0] == 0.0
    for fault in ('{"$ref": "http://127.0.0.1:9/x"}', '{"pattern": "("}'):
        score, reason = schema(fault, '"a"')
        assert score is None
        assert reason.startswith("the JSON schema cannot be used: ")
    assert (worker.MEMORY, set(worker._KINDS)) == (2 << 30, {"equal", "regex", "schema"})  # pyright: ignore[reportPrivateUsage]
