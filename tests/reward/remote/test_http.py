"""The client of reward servers: what it sends, and every way in which a server can fail."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from align.errors import ScorerError, UserError
from reward.remote.http import HttpScorer

PROMPTS = ["p1", "p2", "p3"]
RESPONSES = [["a", "bb"], ["ccc", "dddd"], ["", "ffffff"]]
SCORES = [[1.0, 2.0], [3.0, 4.0], [0.0, 6.0]]


def scorer(url: str, **settings: Any) -> HttpScorer:
    return HttpScorer(url=url, **{"timeout": 5.0, "retries": 2, "backoff": 0.001, **settings})


def right(exchange: Any) -> dict[str, Any]:
    return {"id": exchange.body["id"], "scores": SCORES}


def failure(client: HttpScorer) -> str:
    with pytest.raises(ScorerError) as caught:
        client.score(PROMPTS, RESPONSES)
    message = str(caught.value)
    assert message.startswith(client.url), "names the address"
    assert message.endswith("."), "is one sentence"
    return message


def test_what_is_sent_and_what_comes_back(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer(right(exchange)))
    assert scorer(server.url).score(PROMPTS, RESPONSES, answer=["x", "y", "z"]) == SCORES
    (request,) = server.requests
    assert request.pop("id")
    assert request == {"prompts": PROMPTS, "responses": RESPONSES, "columns": {"answer": ["x", "y", "z"]}}


def test_openrlhf_dialect(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({"rewards": [1, 2, 3, 4, 0, 6.0], "scores": None}))
    client = scorer(server.url, protocol="openrlhf")
    assert client.score(PROMPTS, RESPONSES, answer=["x", "y", "z"], source=["s"] * 3) == SCORES
    assert server.requests == [
        {
            "query": ["p1a", "p1bb", "p2ccc", "p2dddd", "p3", "p3ffffff"],
            "prompts": ["p1", "p1", "p2", "p2", "p3", "p3"],
            "labels": ["x", "x", "y", "y", "z", "z"],
        }
    ]
    client.score(PROMPTS, RESPONSES)
    assert server.requests[1]["labels"] == [""] * 6


def test_large_batches_are_divided_between_prompts(misbehaving: Any) -> None:
    def behave(exchange: Any) -> None:
        table = [[float(len(text)) for text in row] for row in exchange.body["responses"]]
        exchange.answer({"id": exchange.body["id"], "scores": table})

    server = misbehaving(behave)
    assert scorer(server.url, batch_size=4).score(PROMPTS, RESPONSES, answer=[1, 2, 3]) == SCORES
    assert [request["prompts"] for request in server.requests] == [["p1", "p2"], ["p3"]]
    assert [request["columns"]["answer"] for request in server.requests] == [[1, 2], [3]]
    assert scorer(server.url, batch_size=1).score(PROMPTS, RESPONSES) == SCORES
    assert len(server.requests) == 2 + 3
    assert scorer(server.url).score([], []) == []
    assert len(server.requests) == 2 + 3


def test_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    message = failure(scorer(f"http://127.0.0.1:{port}/score"))
    assert "asked 3 times" in message
    assert "start the server" in message


def test_slow(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.closing.wait(10))
    started = time.monotonic()
    said = failure(scorer(server.url, timeout=0.2, retries=1))
    assert "within 0.2 s; look at the server's load, or raise timeout in the scorer's settings (reward.timeout)" in said
    assert time.monotonic() - started < 2
    assert len(server.requests) == 2


def test_an_answer_that_drips_is_slow_as_well(misbehaving: Any) -> None:
    def behave(exchange: Any) -> None:
        exchange.begin()
        while not exchange.closing.wait(0.02):
            exchange.wfile.write(b" ")

    started = time.monotonic()
    assert "within 0.2 s" in failure(scorer(misbehaving(behave).url, timeout=0.2, retries=0))
    assert time.monotonic() - started < 2


def test_500_then_recovers(misbehaving: Any, caplog: pytest.LogCaptureFixture) -> None:
    def behave(exchange: Any) -> None:
        if exchange.number < 2:
            exchange.answer({"error": "out of memory."}, status=500)
        else:
            exchange.answer(right(exchange))

    server = misbehaving(behave)
    assert scorer(server.url).score(PROMPTS, RESPONSES) == SCORES
    assert len(server.requests) == 3
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        f"{server.url}: HTTP 500, out of memory"
    ] * 2
    assert "HTTP 500, out of memory" in failure(
        scorer(misbehaving(lambda e: e.answer({"error": "out of memory."}, 500)).url)
    )


def test_pauses_grow_and_have_a_random_part(misbehaving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.1 s, doubled each time, and up to 0.1 s more: drawn here as 0.1."""
    monkeypatch.setattr("align.system.http_client._pauses.random", lambda: 1.0)
    arrivals: list[float] = []

    def behave(exchange: Any) -> None:
        arrivals.append(time.monotonic())
        exchange.answer({}, status=503)

    failure(scorer(misbehaving(behave).url, retries=3, backoff=0.1))
    pauses = [b - a for a, b in pairwise(arrivals)]
    assert all(pause >= least for pause, least in zip(pauses, (0.2, 0.3, 0.5), strict=True))


def test_a_retry_leaves_the_random_state_of_the_run(misbehaving: Any) -> None:
    """The draws after it are the same whether the server failed once or not."""
    before = random.getstate()
    failure(scorer(misbehaving(lambda exchange: exchange.answer({}, status=503)).url))
    assert random.getstate() == before


def test_retry_after_is_obeyed(misbehaving: Any) -> None:
    def behave(exchange: Any) -> None:
        if exchange.number == 0:
            exchange.answer({}, status=429, Retry_After="1")
        else:
            exchange.answer(right(exchange))

    started = time.monotonic()
    assert scorer(misbehaving(behave).url).score(PROMPTS, RESPONSES) == SCORES
    assert time.monotonic() - started >= 1


WRONG = {
    "short list": ([[1, 2], [3, 4]], "scores has 2 entries for 3 prompts"),
    "short row": ([[1, 2], [3], [5, 6]], "scores[1] has 1 entries for 2 responses"),
    "long row": ([[1, 2], [3, 4, 5], [5, 6]], "scores[1] has 3 entries for 2 responses"),
    "NaN": ([[1, 2], [3, float("nan")], [5, 6]], "scores[1][1] is NaN, not a finite number"),
    "infinite": ([[1, 2], [3, float("-inf")], [5, 6]], "scores[1][1] is -Infinity, not a finite number"),
    "beyond floats": ([[1, 2], [3, 10**400], [5, 6]], "scores[1][1] is 1000000"),
    "string": ([[1, 2], [3, "4"], [5, 6]], 'scores[1][1] is "4", not a finite number'),
    "null": ([[1, 2], [3, None], [5, 6]], "scores[1][1] is null, not a finite number"),
    "bool": ([[1, 2], [3, True], [5, 6]], "scores[1][1] is true, not a finite number"),
    "a list": ([[1, 2], [3, [4]], [5, 6]], "scores[1][1] is a list, not a finite number"),
    "no scores": (None, "scores must be a list, not null"),
    "one number": (0.5, "scores must be a list, not 0.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_scores(case: str, misbehaving: Any) -> None:
    scores, reason = WRONG[case]
    server = misbehaving(lambda exchange: exchange.answer({"id": exchange.body["id"], "scores": scores}))
    assert reason in failure(scorer(server.url))
    assert len(server.requests) == 3, "it was repeated"


@pytest.mark.parametrize(
    "rewards", [[1, 2, 3], [1, 2, 3, 4, 5, None], [1, 2, 3, 4, 5, 6, 7], [[1]] * 6, "123456", None]
)
def test_wrong_rewards_of_openrlhf(rewards: Any, misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({"rewards": rewards}))
    assert "the answer is wrong, rewards" in failure(scorer(server.url, protocol="openrlhf", retries=0))


BODIES = {
    "html": ((b"<html>gateway</html>", 200, "text/html"), "the answer is text/html, not JSON"),
    "html called JSON": ((b"<html>gateway</html>",), "not JSON"),
    "a string": ((b'"0.5"',), "the message must be an object"),
    "a list": ((b"[0.5]",), "the message must be an object"),
    "empty": ((b"",), "not JSON"),
    "cut off": ((b'{"id": "x", "scor',), "not JSON"),
    "not UTF-8": ((b'{"id": "\xff\xfe"}',), "not JSON"),
    "deep": ((b"[" * 200_000,), "not JSON"),
    "wrong id": (
        (json.dumps({"id": "another", "scores": SCORES}).encode(),),
        'id is "another", not that of the request',
    ),
    "no id": ((json.dumps({"scores": SCORES}).encode(),), "id is null, not that of the request"),
    "no content": ((b"", 204), "HTTP 204"),
}


@pytest.mark.parametrize("case", BODIES)
def test_wrong_bodies(case: str, misbehaving: Any) -> None:
    arguments, reason = BODIES[case]
    assert reason in failure(scorer(misbehaving(lambda exchange: exchange.answer(*arguments)).url))


def test_endless_answer_is_cut_off(misbehaving: Any) -> None:
    sent = [0]

    def behave(exchange: Any) -> None:
        exchange.begin()
        while not exchange.closing.is_set():
            exchange.wfile.write(b"[" * 2**16)
            sent[0] += 2**16

    started = time.monotonic()
    assert "longer than 1048576 bytes" in failure(scorer(misbehaving(behave).url, retries=0))
    assert time.monotonic() - started < 3
    assert sent[0] < 2**26, "what the sockets hold, not gigabytes"


def test_announced_10_gigabytes_are_not_read(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: (exchange.begin(Content_Length=str(10**10)), exchange.closing.wait(10)))
    started = time.monotonic()
    assert "longer than 1048576 bytes" in failure(scorer(server.url, retries=0))
    assert time.monotonic() - started < 3


def test_compressed_answer_is_refused(misbehaving: Any) -> None:
    bomb = gzip.compress(b" " * 2**24)
    server = misbehaving(lambda exchange: exchange.answer(bomb, Content_Encoding="gzip"))
    assert "compressed" in failure(scorer(server.url, retries=0))
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_redirects_are_not_followed(misbehaving: Any) -> None:
    other = misbehaving(lambda exchange: exchange.answer(right(exchange)))
    server = misbehaving(lambda exchange: exchange.answer({}, status=307, Location=other.url))
    assert "a redirection, which is not followed" in failure(scorer(server.url))
    assert (len(server.requests), len(other.requests)) == (1, 0)


def test_a_wrong_request_is_not_repeated(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({"error": "no\x1b[31m column"}, status=400))
    message = failure(scorer(server.url))
    assert "asked once" in message
    assert r"HTTP 400, no\x1b[31m column;" in message, "control characters are escaped"
    assert len(server.requests) == 1


def test_token_is_sent_and_never_shown(misbehaving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")

    def behave(exchange: Any) -> None:
        given = exchange.headers["Authorization"]
        if given == "Bearer s3cret":
            exchange.answer(right(exchange))
        else:
            exchange.answer({"error": f"{given} is wrong"}, status=401)

    server = misbehaving(behave)
    client = scorer(server.url, token_env="REWARD_TOKEN")
    assert client.score(PROMPTS, RESPONSES) == SCORES
    assert "s3cret" not in repr(client)
    monkeypatch.setenv("REWARD_TOKEN", "wr0ng")
    message = failure(client)
    assert "HTTP 401, Bearer … is wrong" in message.replace(r"\u2026", "…")
    assert "wr0ng" not in message
    assert len(server.requests) == 2, "not repeated"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "url is missing"),
        ({"url": "reward:8000"}, "is not an address"),
        ({"url": "ftp://127.0.0.1/x"}, "is not an address"),
        ({"url": "http://reward.example/score"}, "is not encrypted"),
        ({"url": "http://reward.example/score", "token_env": "GOOD_TOKEN"}, "is not encrypted"),
        ({"url": "http://127.0.0.1.example/score"}, "is not encrypted"),
        ({"url": "http://0.0.0.0:8000/score"}, "is not encrypted"),
        ({"url": "https://reward.example/score"}, "in token_env"),
        ({"url": "http://user:word@127.0.0.1/score"}, "without user"),
        ({"url": "https://reward.example/score?token=word"}, "without user"),
        ({"url": "http://127.0.0.1/", "token_env": "word-of-mine"}, "the name of an environment variable"),
        ({"url": "http://127.0.0.1/", "token_env": "UNSET_TOKEN"}, "UNSET_TOKEN is not set"),
        ({"url": "http://127.0.0.1/", "token_env": "BLANK_TOKEN"}, "BLANK_TOKEN has blanks"),
        ({"url": "http://127.0.0.1/", "timeout": 0.0}, "timeout must be above 0"),
        ({"url": "http://127.0.0.1/", "timeout": float("nan")}, "timeout must be above 0"),
        ({"url": "http://127.0.0.1/", "retries": -1}, "retries must be at least 0"),
        ({"url": "http://127.0.0.1/", "batch_size": 0}, "batch_size must be at least 1"),
        ({"url": "http://127.0.0.1/", "protocol": "trl"}, "protocol must be align or openrlhf"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLANK_TOKEN", "word with\nblank")
    monkeypatch.setenv("GOOD_TOKEN", "word")
    with pytest.raises(UserError) as caught:
        HttpScorer(**settings)
    assert reason in str(caught.value)
    assert "word" not in str(caught.value).replace("password", ""), "no secret is shown"


@pytest.mark.parametrize("url", ["http://localhost:8000/score", "http://[::1]:8000/", "http://127.0.0.9/"])
def test_loopback_needs_no_token(url: str) -> None:
    HttpScorer(url=url)


def test_a_column_that_is_not_json(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer(right(exchange)))
    for value in (object(), float("nan")):
        with pytest.raises(UserError, match="cannot be sent"):
            scorer(server.url).score(PROMPTS, RESPONSES, answer=[value] * 3)
    assert not server.requests


def test_a_proxy_of_the_environment_does_not_see_loopback(misbehaving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = misbehaving(lambda exchange: exchange.answer(right(exchange)))
    server = misbehaving(lambda exchange: exchange.answer(right(exchange)))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert scorer(server.url).score(PROMPTS, RESPONSES) == SCORES
    assert not proxy.requests


def test_works_inside_a_running_loop(misbehaving: Any) -> None:
    import asyncio

    server = misbehaving(lambda exchange: exchange.answer(right(exchange)))

    async def cell() -> list[list[float]]:
        return scorer(server.url).score(PROMPTS, RESPONSES)

    assert asyncio.run(cell()) == SCORES


@pytest.mark.slow  # of a machine that does something else
def test_overhead_is_below_5_percent(serve: Callable[..., str], lengths: Any) -> None:
    """Batch 64 of texts of 2,000 characters; the quickest of some rounds, since other work disturbs each of them."""
    model = lengths(seconds=0.3)
    client = scorer(f"{serve(model)}/score")
    prompts = ["question " * 50] * 64
    responses = [[os.urandom(1000).hex()] for _ in prompts]

    def seconds(one: Any) -> float:
        started = time.perf_counter()
        one.score(prompts, responses)
        return time.perf_counter() - started

    direct = served = float("inf")
    for _ in range(8):
        direct, served = min(direct, seconds(model)), min(served, seconds(client))
        if served < 1.05 * direct:
            break
    print(f"direct {direct:.4f} s, over HTTP {served:.4f} s, overhead {served / direct - 1:.1%}")
    assert set(model.batches) == {64}, "in one piece"
    assert served < 1.05 * direct


def test_settings_survive_replace(misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({}, status=500))
    assert "asked once" in failure(replace(scorer(server.url), retries=0))
