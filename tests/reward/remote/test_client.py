"""The client's bounds: which addresses are this machine, which failures are repeated, how long it waits."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from align.errors import ScorerError, UserError
from align.system import http_client as module
from align.system.network import check_address
from reward.remote.http import HttpScorer
from reward.remote.judge import Judge

TEXTS = (["p"], [["a"]])


def right(exchange: Any) -> None:
    exchange.answer({"id": exchange.body["id"], "scores": [[1.0]]})


def test_settings_that_are_not_given() -> None:
    """As `reward/remote/client.py`, `http.py` and `judge.py` document them."""
    common = {
        "timeout": 120.0,
        "connect_timeout": 10.0,
        "retries": 5,
        "backoff": 1.0,
        "max_answer_bytes": 2**20,
    }
    http = {"url": "", "protocol": "align", "token_env": None, "batch_size": 64}
    judge = {
        **{"base_url": "", "model": "", "api_key_env": None, "template": None, "reference": "chosen"},
        **{"max_tokens": 1024, "concurrency": 8, "cache": "~/.cache/align/judge.sqlite"},
        **{"prompt_price": None, "completion_price": None},
    }
    for cls, own in ((HttpScorer, http), (Judge, judge)):
        found = {field.name: field.default for field in dataclasses.fields(cls) if field.init}
        assert found == {**common, **own}
        assert cls.costly
    assert (HttpScorer.name, Judge.name) == ("http", "judge")


@pytest.mark.parametrize("field", ["timeout", "connect_timeout", "backoff", "max_answer_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_bounds_are_finite_and_above_zero(field: str, value: float) -> None:
    settings: dict[str, Any] = {"url": "http://127.0.0.1:1/", field: value}
    with pytest.raises(UserError, match=field):
        HttpScorer(**settings)


@pytest.mark.parametrize("extra", ["?token=x", "#x"])
def test_an_address_has_no_place_for_a_secret(extra: str) -> None:
    for address in (
        f"http://127.0.0.1/{extra}",
        f"https://example.org/{extra}",
        "https://me@example.org/",
        "https://:x@example.org/",
    ):
        with pytest.raises(UserError, match="without user, password, query or fragment"):
            check_address("url", address, "token_env", None)


def test_another_machine_needs_both_encryption_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", "token")
    check_address("url", "https://example.org/score", "token_env", "GOOD")
    for address, variable in (("http://example.org/", "GOOD"), ("https://example.org/", None)):
        with pytest.raises(UserError):
            check_address("url", address, "token_env", variable)
    check_address("url", "http://127.0.0.1/", "token_env", None)
    with pytest.raises(UserError, match="UNSET is not set"):
        check_address("url", "http://127.0.0.1/", "token_env", "UNSET")


@pytest.mark.parametrize(
    ("status", "times"),
    [
        *((status, 3) for status in (408, 425, 429, 500, 502, 503, 599)),
        *((status, 1) for status in (201, 301, 308, 400, 401, 403, 404, 422, 499)),
    ],
)
def test_which_answers_are_asked_for_again(status: int, times: int, misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({"error": "no"}, status=status))
    asked = "once" if times == 1 else f"{times} times"
    with pytest.raises(ScorerError, match=f"was asked {asked} and gave no scores: HTTP {status}, no"):
        HttpScorer(url=server.url, retries=2, backoff=0.001, timeout=5.0).score(*TEXTS)
    assert len(server.requests) == times


@pytest.mark.parametrize(
    ("status", "said"), [(401, "put the server's token"), (403, "put the server's token"), (404, "look at the server")]
)
def test_the_remedy_fits_the_refusal(status: int, said: str, misbehaving: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({}, status=status))
    with pytest.raises(ScorerError, match=said):
        HttpScorer(url=server.url, retries=0, timeout=5.0).score(*TEXTS)


@pytest.mark.parametrize(
    ("backoff", "after", "pauses"),
    [
        (1.0, "", [1, 2, 4, 8, 16, 32, 60, 60]),  # doubled up to a minute; no random part here
        (3.0, "", [3, 6, 12, 24, 48, 60, 60, 60]),
        (1.0, "10", [10, 10, 10, 10, 16, 32, 60, 60]),  # at least what the server asks for
        (1.0, "600", [60] * 8),  # but never more than a minute
        (1.0, "soon", [1, 2, 4, 8, 16, 32, 60, 60]),
    ],
)
def test_pauses_by_hand(
    backoff: float, after: str, pauses: list[float], misbehaving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(module._pauses, "uniform", lambda *_: 0.0)
    monkeypatch.setattr(module, "AsyncRetrying", lambda **settings: _ASYNC_RETRYING(sleep=sleep, **settings))
    server = misbehaving(lambda exchange: exchange.answer({}, status=503, Retry_After=after))
    with pytest.raises(ScorerError, match="asked 9 times"):
        HttpScorer(url=server.url, retries=8, backoff=backoff, timeout=5.0).score(*TEXTS)
    assert waited == pauses


_ASYNC_RETRYING: Any = module.AsyncRetrying


def test_an_answer_of_just_the_longest_length_is_read(misbehaving: Any) -> None:
    length = [0]

    def behave(exchange: Any) -> None:
        data = json.dumps({"id": exchange.body["id"], "scores": [[1.0]]}).encode()
        length[0] = len(data)
        exchange.answer(data)

    server = misbehaving(behave)
    HttpScorer(url=server.url, timeout=5.0).score(*TEXTS)
    bound = length[0]
    HttpScorer(url=server.url, timeout=5.0, max_answer_bytes=bound).score(*TEXTS)
    with pytest.raises(ScorerError, match=rf"longer than {bound - 1} bytes; .*\(reward\.max_answer_bytes\)"):
        HttpScorer(url=server.url, timeout=5.0, retries=0, max_answer_bytes=bound - 1).score(*TEXTS)


def test_what_is_asked_for_is_plain_json(misbehaving: Any) -> None:
    server = misbehaving(right)
    HttpScorer(url=server.url, timeout=5.0).score(*TEXTS)
    (headers,) = server.headers
    kinds = [headers[name] for name in ("Content-Type", "Accept", "Accept-Encoding")]
    assert kinds == ["application/json", "application/json", "identity"]
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    "change",
    [
        *({"timeout": 1.0}, {"connect_timeout": 1.0}, {"retries": 1}, {"backoff": 0.5}, {"max_answer_bytes": 9}),
        *({"token_env": "GOOD"}, {"batch_size": 1}),
    ],
    ids=str,
)
def test_what_bounds_requests_is_no_part_of_the_identity(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", "token")
    one = HttpScorer(url="http://127.0.0.1:1/")
    assert dataclasses.replace(one, **change).identity() == one.identity()
    assert one.identity() == {"scorer": "HttpScorer", "url": "http://127.0.0.1:1/", "protocol": "align"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        *(({name: 1}, True) for name in ("concurrency", "retries", "max_answer_bytes")),
        *(({name: 1.0}, True) for name in ("timeout", "backoff", "prompt_price", "completion_price")),
        *(({"cache": "other.sqlite"}, True), ({"api_key_env": "GOOD"}, True)),
        *(({"base_url": "http://127.0.0.1:2"}, False), ({"model": "n"}, False), ({"max_tokens": 1}, False)),
        *(({"reference": "gold"}, False), ({"template": "t.txt"}, False)),
    ],
    ids=str,
)
def test_the_identity_of_a_judge(
    change: dict[str, Any], same: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOOD", "token")
    (tmp_path / "t.txt").write_text("{prompt} {a} {b}")
    one = Judge(base_url="http://127.0.0.1:1", model="m", cache="judge.sqlite")
    other = dataclasses.replace(one, **change)
    assert (other.identity() == one.identity()) is same
    before = other.identity()
    other.usage.answers += 1
    assert other.identity() == before
    (tmp_path / "t.txt").write_text("{prompt} {a} {b}?")
    assert (other.identity() == before) is ("template" not in change)
