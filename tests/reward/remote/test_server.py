"""The reward server: both languages, whatever is asked and whatever a scorer does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from align.errors import ScorerError, UserError
from reward.combinations.weighted_sum import WeightedSum
from reward.remote.server import RewardServer
from tests.reward.remote.reward_clients import Picky, client, question


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
