"""The reward server: both languages, joined requests, limits, and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from align.errors import ScorerError, UserError
from align.system.http_client import _tls
from reward.combinations.weighted_sum import WeightedSum
from reward.remote.http import HttpScorer
from reward.remote.server import RewardServer

ROOT = Path(__file__).resolve().parents[3]


def client(url: str, **settings: Any) -> HttpScorer:
    return HttpScorer(url=url, **{"timeout": 10.0, "retries": 0, **settings})


def question(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "prompts": ["p", "q"], "responses": [["a"], ["bb"]], "columns": {}, **changes}


@pytest.mark.parametrize(("protocol", "path"), [("align", "/score"), ("openrlhf", "/get_reward")])
def test_client_and_server_agree(protocol: Any, path: str, serve: Callable[..., str], lengths: Any) -> None:
    one = client(serve(lengths()) + path, protocol=protocol)
    prompts, responses = ["p", "q é"], [["a", "bb"], ["", "d\u2028\x00"]]
    assert one.score(prompts, responses) == [[1, 2], [0, 3]]
    assert one.score(prompts, responses, answer=["x", "yy"]) == [[101, 102], [200, 203]]


def test_openrlhf_without_prompts(serve: Callable[..., str], lengths: Any) -> None:
    scorer = lengths()
    url = serve(scorer) + "/get_reward"
    assert httpx2.post(url, json={"query": ["p a", "q"]}).json() == {"rewards": [3.0, 1.0]}
    body = {"query": ["p a", "q"], "prompts": ["p ", ""], "labels": ["", "xx"]}
    assert httpx2.post(url, json=body).json() == {"rewards": [1.0, 201.0]}
    assert scorer.calls == [
        (["", ""], [["p a"], ["q"]], {}),
        (["p ", ""], [["a"], ["q"]], {"answer": ["", "xx"]}),
    ]


def test_requests_that_come_together_are_scored_together(serve: Callable[..., str], lengths: Any) -> None:
    scorer = lengths(seconds=0.01)
    url = serve(scorer, wait=0.3, batch_size=32) + "/score"
    with ThreadPoolExecutor(8) as pool:
        asked = [[["x" * i], ["y" * i], ["z" * i], ["w"]] for i in range(8)]
        got = list(pool.map(lambda responses: client(url).score(["p"] * 4, responses), asked))
    assert got == [[[i], [i], [i], [1]] for i in range(8)], "each gets its own"
    assert scorer.batches == [32]


def test_a_full_batch_does_not_wait_and_a_large_request_is_divided(serve: Callable[..., str], lengths: Any) -> None:
    scorer = lengths()
    url = serve(scorer, wait=1.0, batch_size=4) + "/score"
    started = time.monotonic()
    assert client(url).score(["p"] * 24, [["a", "bb"]] * 24) == [[1, 2]] * 24
    assert scorer.batches == [4] * 12
    assert time.monotonic() - started < 6  # a wait before each batch would take 12


def test_requests_of_another_shape_are_not_joined(serve: Callable[..., str], lengths: Any) -> None:
    scorer = lengths()
    url = serve(scorer, wait=0.2) + "/score"
    asked = [([["a"]], {}), ([["a", "b"]], {}), ([["a"]], {"answer": ["x"]})]
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda one: client(url).score(["p"], one[0], **one[1]), asked))
    assert got == [[[1]], [[1, 1]], [[101]]]
    assert sorted(scorer.batches) == [1, 1, 2]


class Picky:
    name = "picky"

    def score(self, prompts: Any, _responses: Any, **_columns: Any) -> list[list[Any]]:
        if "user" in prompts:
            raise UserError("Column answer is missing: add it.")
        if "bug" in prompts:
            raise KeyError("answer")
        wrong = {"nan": [float("nan")], "text": ["0.5"], "short": []}
        return [wrong.get(prompt, [1.0]) for prompt in prompts]


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("user", 400, "Column answer is missing: add it."),
        ("bug", 500, f"scorer 'picky' failed at {__file__}, line 95, in score: KeyError: 'answer'; correct it."),
        ("nan", 500, "scorer 'picky', prompt 0, response 0: 'nan' is not a finite number; correct the scorer."),
        ("text", 500, "scorer 'picky', prompt 0, response 0: '0.5' is not a finite number; correct the scorer."),
        ("short", 500, "scorer 'picky' must return one score per response, 1 rows of 1."),
    ],
)
def test_a_request_that_fails_spoils_no_other(prompt: str, status: int, error: str, serve: Callable[..., str]) -> None:
    url = serve(Picky(), wait=0.2) + "/score"

    def ask(text: str) -> httpx2.Response:
        return httpx2.post(url, json=question(prompts=[text], responses=[["a"]]))

    with ThreadPoolExecutor(3) as pool:
        bad, good, other = pool.map(ask, [prompt, "good", "good"])
    assert (bad.status_code, bad.json()) == (status, {"error": error})
    assert good.json() == other.json() == {"id": "1", "scores": [[1.0]]}


@pytest.mark.parametrize(
    ("prompts", "responses", "scores"), [([], [], []), (["p"], [[]], [[]]), (["p", "q"], [[], []], [[], []])]
)
@pytest.mark.parametrize("other", [False, True], ids=["alone", "joined"])
def test_where_there_is_nothing_to_score_no_scorer_is_asked(
    prompts: Any, responses: Any, scores: Any, other: bool, serve: Callable[..., str], lengths: Any
) -> None:
    scorer = lengths()
    url = serve(scorer) + "/score"
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(client(url).score, ["p"], [["abc"]]) if other else None
        empty = httpx2.post(url, json=question(prompts=prompts, responses=responses))
        assert empty.json() == {"id": "1", "scores": scores}
        assert beside is None or beside.result() == [[3]]
    assert client(url).score(["p"], [["ab"]]) == [[2]], "and the next request is answered"
    assert sum(scorer.batches) == 1 + other


def test_openrlhf_without_queries(serve: Callable[..., str], lengths: Any) -> None:
    url = serve(lengths()) + "/get_reward"
    assert httpx2.post(url, json={"query": []}).json() == {"rewards": []}
    assert httpx2.post(url, json={"query": ["a"]}).json() == {"rewards": [1.0]}


def test_half_a_surrogate_pair_comes_back_as_it_came(serve: Callable[..., str], lengths: Any) -> None:
    """JSON may hold it, UTF-8 may not; in the id it is answered, in a column's name it is shown."""
    url = serve(lengths()) + "/score"

    def ask(**changes: Any) -> httpx2.Response:
        return httpx2.post(
            url, content=json.dumps(question(**changes)).encode(), headers={"Content-Type": "application/json"}
        )

    assert ask(id="\ud800").json() == {"id": "\ud800", "scores": [[1], [2]]}
    assert ask(responses=[["\ud800"], ["bb"]]).json() == {"id": "1", "scores": [[1], [2]]}
    wrong = ask(columns={"\ud800": []})
    assert (wrong.status_code, wrong.json()) == (400, {"error": "columns.\ud800 has 0 entries for 2 prompts."})
    assert ask().json() == {"id": "1", "scores": [[1], [2]]}


@pytest.mark.parametrize("name", ["scorer", "name", "scorers", "cls", "rows"])
def test_a_column_may_have_a_name_of_the_servers_own_code(name: str, serve: Callable[..., str]) -> None:
    class Columns:
        name = "columns"

        def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
            del responses
            return [[float(value)] for value in columns.get(name, [0] * len(prompts))]

    url = serve(WeightedSum(scorers={"a": Columns(), "b": Columns()}, weights={"b": 0.5})) + "/score"
    answer = httpx2.post(url, json=question(responses=[["a"], ["b"]], columns={name: [2, 4]}))
    assert answer.json() == {"id": "1", "scores": [[3.0], [6.0]]}


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("answer"), "KeyError: 'answer'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (CancelledError(), "concurrent.futures._base.CancelledError"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (StopIteration(), "StopIteration"),
        (MemoryError(), "MemoryError"),
        (Unprintable(), f"{__name__}.Unprintable: <exception str() failed>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_scorer_raises_the_next_request_is_answered(
    error: BaseException, told: str, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, lengths: Any
) -> None:
    def fail(scorer: Any, prompts: Any, responses: Any, /, **columns: Any) -> Any:
        if "bug" in prompts:
            raise error
        return scorer.score(prompts, responses, **columns)

    monkeypatch.setattr("reward.remote.server.score", fail)
    url = serve(lengths()) + "/score"
    refused = httpx2.post(url, json=question(prompts=["bug", "q"]))
    assert (refused.status_code, refused.json()) == (500, {"error": f"the scorer lengths failed, {told}."})
    assert client(url).score(["p"], [["ab"]]) == [[2]]


def test_the_scorers_mistake_reaches_the_client(serve: Callable[..., str]) -> None:
    with pytest.raises(ScorerError, match="HTTP 400, Column answer is missing: add it;"):
        client(serve(Picky()) + "/score").score(["user"], [["a"]])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (question(responses=[["a"]]), "responses has 1 entries for 2 prompts."),
        (question(responses=[["a"], ["b", "c"]]), "responses must have the same number of texts for each prompt."),
        (question(responses=[["a"], [3]]), "responses[1][0] must be text, not 3."),
        (question(responses=["a", "b"]), 'responses[0] must be a list, not "a".'),
        (question(prompts="p"), 'prompts must be a list, not "p".'),
        (question(columns={"answer": ["x"]}), "columns.answer has 1 entries for 2 prompts."),
        (question(columns=[]), "columns must be an object, not a list."),
        (question(columns={"self": [1, 2]}), "columns.self is a name that scorers use themselves; rename the column."),
        (
            question(columns={"prompts": [1, 2]}),
            "columns.prompts is a name that scorers use themselves; rename the column.",
        ),
        (question(id=7), "id must be text, not 7."),
        ([1], "the message must be an object, not a list."),
    ],
)
def test_wrong_requests_are_named(body: Any, error: str, serve: Callable[..., str], lengths: Any) -> None:
    url = serve(lengths()) + "/score"
    answer = httpx2.post(url, json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": error})
    assert client(url).score(["p"], [["ab"]]) == [[2]]


def test_wrong_openrlhf_requests_are_named(serve: Callable[..., str], lengths: Any) -> None:
    url = serve(lengths()) + "/get_reward"
    for body, error in [
        ({"query": ["pa"], "prompts": ["x"]}, "query[0] does not begin with prompts[0]."),
        ({"query": ["pa"], "prompts": ["p", "q"]}, "prompts has 2 entries for 1 queries."),
        ({"prompts": ["p"]}, "query must be a list, not null."),
    ]:
        answer = httpx2.post(url, json=body)
        assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_limits_and_types(serve: Callable[..., str], lengths: Any) -> None:
    scorer = lengths()
    url = serve(scorer, max_request_bytes=1000)
    long = httpx2.post(f"{url}/score", json=question(prompts=["p" * 1000, "q"]))
    assert (long.status_code, long.json()["error"]) == (413, "the request is longer than 1000 bytes.")
    chunked = httpx2.post(
        f"{url}/score", content=(b" " * 100 for _ in range(50)), headers={"Content-Type": "application/json"}
    )
    assert chunked.status_code == 413
    form = httpx2.post(f"{url}/score", content=json.dumps(question()), headers={"Content-Type": "text/plain"})
    assert (form.status_code, form.json()["error"]) == (415, "the request must have Content-Type: application/json.")
    for content in (b"{", b"[" * 900, b"\xff"):
        broken = httpx2.post(f"{url}/score", content=content, headers={"Content-Type": "application/json"})
        assert broken.status_code == 400
    assert httpx2.get(f"{url}/score").status_code == 405
    assert httpx2.get(f"{url}/elsewhere").status_code == 404
    assert httpx2.get(f"{url}/health").json() == {"status": "ok", "scorer": "lengths"}
    assert not scorer.calls


def test_a_request_of_just_the_longest_length_is_read(serve: Callable[..., str], lengths: Any) -> None:
    content = json.dumps(question()).encode()
    for limit, status in ((len(content), 200), (len(content) - 1, 413)):
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            url = serve(lengths(), max_request_bytes=limit) + "/score"
            assert httpx2.post(url, content=content, headers={"Content-Type": kind}).status_code == status


def test_a_batch_is_the_oldest_row_with_those_of_its_kind(lengths: Any) -> None:
    """At most four responses: two rows of two. Rows of other columns or widths keep their order."""
    import asyncio

    from reward.remote.server import _Batcher, _Row  # pyright: ignore[reportPrivateUsage]

    async def taken() -> list[list[str]]:
        batcher = _Batcher(lengths(), 4, 0.0)
        two, one = ["x", "y"], ["x"]
        rows = [
            ("a", two, {}),
            ("b", one, {}),
            ("c", two, {"k": 1}),
            ("d", two, {}),
            ("e", two, {}),
            ("f", two, {"l": 1}),
        ]
        batcher._rows = [_Row(*row) for row in rows]  # pyright: ignore[reportPrivateUsage]
        found: list[list[str]] = []
        while batcher._rows:  # pyright: ignore[reportPrivateUsage]
            found.append([row.prompt for row in batcher._take()])  # pyright: ignore[reportPrivateUsage]
        return found

    assert asyncio.run(taken()) == [["a", "d"], ["b"], ["c"], ["e"], ["f"]]


@pytest.mark.parametrize("missing", ["token_env", "tls"])
def test_the_network_needs_a_token_and_a_certificate(
    missing: str, lengths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    (tmp_path / "file").touch()
    files = {"tls_cert": str(tmp_path / "file"), "tls_key": str(tmp_path / "file")}
    both = {"token_env": "REWARD_TOKEN", **files}
    RewardServer(scorer=lengths(), host="0.0.0.0", **both)
    with pytest.raises(UserError, match="can be reached from other machines"):
        RewardServer(scorer=lengths(), host="0.0.0.0", **({"token_env": "REWARD_TOKEN"} if missing == "tls" else files))
    for port in (0, 65535):
        RewardServer(scorer=lengths(), port=port)
    with pytest.raises(UserError, match="port must be"):
        RewardServer(scorer=lengths(), port=-1)


def test_token(serve: Callable[..., str], lengths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    scorer = lengths()
    url = serve(scorer, token_env="REWARD_TOKEN")
    for path in ("/score", "/get_reward"):
        for given in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}, {"Authorization": b"\xff"}):
            refused = httpx2.post(url + path, json=question(), headers=given)
            assert refused.status_code == 401
            assert "s3cret" not in refused.text
    assert not scorer.calls
    assert client(f"{url}/score", token_env="REWARD_TOKEN").score(["p"], [["a"]]) == [[1]]
    with pytest.raises(ScorerError, match="HTTP 401"):
        client(f"{url}/score").score(["p"], [["a"]])
    assert httpx2.get(f"{url}/health").status_code == 200


def test_tls(serve: Callable[..., str], lengths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=reward"
    try:
        subprocess.run(
            [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    url = serve(lengths(), token_env="REWARD_TOKEN", tls_cert=certificate, tls_key=key, host="0.0.0.0") + "/score"
    try:
        _tls.cache_clear()
        with pytest.raises(ScorerError, match=r"(?i)certificate"):
            client(url, token_env="REWARD_TOKEN").score(["p"], [["a"]])
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        _tls.cache_clear()
        assert client(url, token_env="REWARD_TOKEN").score(["p"], [["a"]]) == [[1]]
    finally:
        _tls.cache_clear()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "0.0.0.0"}, "can be reached from other machines: give token_env, tls_cert and tls_key"),
        ({"host": "0.0.0.0", "token_env": "REWARD_TOKEN"}, "can be reached from other machines"),
        ({"host": ""}, "can be reached from other machines"),
        ({"token_env": "UNSET_TOKEN"}, "UNSET_TOKEN is not set"),
        ({"token_env": "sk-12345"}, "not the token itself"),
        ({"tls_cert": "cert.pem"}, "belong together"),
        ({"tls_cert": "cert.pem", "tls_key": "key.pem"}, "tls_cert='cert.pem': there is no such file"),
        ({"port": 65536}, "port must be from 0 to 65535"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_request_bytes": 0}, "max_request_bytes must be at least 1"),
        ({"wait": 2.0}, "wait must be from 0 to 1 second"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], reason: str, lengths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    with pytest.raises(UserError, match=re.escape(reason)):
        RewardServer(scorer=lengths(), **settings)


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
    from align.world import heldout_prompts

    (row,) = heldout_prompts()[:1]
    with process("scripts/serve_reward.py", "true_reward", "--port", "0") as (server, url):
        assert httpx2.get(f"{url}/health").json() == {"status": "ok", "scorer": "true_reward"}
        ((score,),) = client(f"{url}/score").score([row["prompt"]], [["nonsense"]], answer=[row["answer"]])
        assert 0 <= score <= 1
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
