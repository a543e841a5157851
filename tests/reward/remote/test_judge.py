"""The pairwise judge, against a chat endpoint whose verdicts a test writes down."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.errors import ScorerError, UserError
from reward.remote.judge import Judge, PairVerdict

SAID = {"a": "[[A]]", "b": "[[B]]", "tie": "[[C]]"}
Decide = Callable[[str, str, str], str]


def shown(exchange: Any) -> tuple[str, str, str]:
    """Prompt and the two answers, as the judge is shown them."""
    (message,) = exchange.body["messages"]
    parts = re.search(r"<request>\n(.*)\n</request>.*_A>\n(.*)\n</.*_B>\n(.*)\n</", message["content"], re.DOTALL)
    assert parts is not None
    assert message["role"] == "user"
    return parts[1], parts[2], parts[3]


def completion(text: Any, prompt_tokens: int = 100, completion_tokens: int = 10) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def longer(_: str, a: str, b: str) -> str:
    """A fair judge: the longer answer is better."""
    return (
        f"Some would say [[A]], others [[B]].\n{SAID['tie' if len(a) == len(b) else 'a' if len(a) > len(b) else 'b']}"
    )


@pytest.fixture
def endpoint(misbehaving: Any) -> Callable[[Decide], Any]:
    return lambda decide: misbehaving(lambda exchange: exchange.answer(completion(decide(*shown(exchange)))))


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Judge]:
    def make(url: str, **settings: Any) -> Judge:
        defaults = {"model": "m", "cache": str(tmp_path / "cache" / "judge.sqlite"), "backoff": 0.001, "timeout": 5.0}
        return Judge(base_url=f"{url}/v1", **{**defaults, "retries": 1, **settings})

    return make


def test_both_orders_are_asked(endpoint: Any, judge: Any) -> None:
    asked: list[tuple[str, str, str]] = []
    server = endpoint(lambda *texts: asked.append(texts) or longer(*texts))
    verdicts = judge(server.url).compare(["p", "q"], ["long", "x"], ["s", "tall"])
    assert verdicts == [PairVerdict("a", "a"), PairVerdict("b", "b")]
    assert [verdict.score for verdict in verdicts] == [1, 0]
    assert sorted(asked) == [("p", "long", "s"), ("p", "s", "long"), ("q", "tall", "x"), ("q", "x", "tall")]
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0, 1024)


def test_a_judge_that_takes_the_first_gives_ties(endpoint: Any, judge: Any) -> None:
    (verdict,) = judge(endpoint(lambda *_: "[[A]]").url).compare(["p"], ["one"], ["two"])
    assert verdict == PairVerdict("a", "b")
    assert verdict.score == 0.5


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (("[[A]]", "[[C]]"), 0.5),  # won once, tied once
        (("[[C]]", "[[C]]"), 0.5),
        (("[[A]]", "[[B]]"), 1.0),
        (("[[B]]", "[[A]]"), 0.0),
        (("[[A]]", "none"), 0.5),
        (("[[ a ]]\n", "**[[b]]**."), 1.0),
        (("[[TIE]]", "[[tie]]"), 0.5),
        (("[[B]] was my first thought, but [[A]]", "I quote [[A]]: so [[B]]"), 1.0),
    ],
)
def test_verdicts(said: tuple[str, str], score: float, endpoint: Any, judge: Any) -> None:
    server = endpoint(lambda _, a, __: said[0] if a == "one" else said[1])
    (verdict,) = judge(server.url).compare(["p"], ["one"], ["two"])
    assert verdict.score == score


def test_equal_answers_are_a_tie_without_a_question(endpoint: Any, judge: Any) -> None:
    server = endpoint(longer)
    assert [verdict.score for verdict in judge(server.url).compare(["p"], ["same"], ["same"])] == [0.5]
    assert not server.requests


def test_win_shares(endpoint: Any, judge: Any) -> None:
    """Of lengths 1, 3, 2 the second beats both, the third one; equal lengths share."""
    server = endpoint(longer)
    one = judge(server.url)
    assert one.score(["p", "q"], [["x", "xxx", "xx"], ["x", "y", "zz"]]) == [[0, 1, 0.5], [0.25, 0.25, 1]]
    assert len(server.requests) == 2 * 3 * 2


def test_one_response_is_compared_with_the_reference(endpoint: Any, judge: Any) -> None:
    one = judge(endpoint(longer).url)
    chosen = ["yy", [{"role": None, "content": "yy"}], [{"role": "assistant", "content": "yy"}]]
    assert one.score(["p"] * 3, [["xxx"], ["x"], ["xx"]], chosen=chosen) == [[1], [0], [0.5]]
    other = judge(one.base_url.removesuffix("/v1"), reference="gold")
    assert other.score(["p"], [["xxx"]], chosen=["xxxx"], gold=["y"]) == [[1]]
    with pytest.raises(UserError, match="add a column 'chosen'"):
        one.score(["p"], [["x"]])
    with pytest.raises(UserError, match="must hold one answer"):
        one.score(["p"], [["x"]], chosen=[None])
    assert one.score([], []) == []


def test_cache_hit_makes_no_request(endpoint: Any, judge: Any, tmp_path: Path) -> None:
    server = endpoint(longer)
    asked = (["p"], ["one"], ["three"])
    first, again = judge(server.url), judge(server.url)
    verdicts = first.compare(*asked)
    assert again.compare(*asked) == verdicts
    assert again.compare(["p"], ["three"], ["one"])[0].score == 1 - verdicts[0].score, "both orders are known"
    assert len(server.requests) == 2
    assert (again.usage.answers, again.usage.cached, again.usage.prompt_tokens) == (0, 4, 0)
    judge(server.url, model="other").compare(*asked)
    judge(server.url, max_tokens=7).compare(*asked)
    template = tmp_path / "t.txt"
    template.write_text("<request>\n{prompt}\n</request> _A>\n{a}\n</ _B>\n{b}\n</")
    judge(server.url, template=str(template)).compare(*asked)
    other = endpoint(longer)
    judge(other.url).compare(*asked)
    assert (len(server.requests), len(other.requests)) == (8, 2), (
        "another model, length, template or endpoint is another question"
    )


def test_what_was_answered_before_a_failure_is_kept(misbehaving: Any, judge: Any) -> None:
    broken = [True]

    def behave(exchange: Any) -> None:
        if shown(exchange)[0] == "bad" and broken[0]:
            exchange.answer({"error": {"message": "no credit"}}, status=402)
        else:
            exchange.answer(completion("[[C]]"))

    server = misbehaving(behave)
    one = judge(server.url, concurrency=1)
    asked = (["good", "bad"], ["one", "one"], ["two", "two"])
    with pytest.raises(ScorerError, match=r"/v1/chat/completions was asked once.*HTTP 402, no credit"):
        one.compare(*asked)
    assert len(server.requests) == 3
    broken[0] = False
    one.compare(*asked)
    assert len(server.requests) == 5, "the good ones were not asked again"


def test_repeated_questions_are_asked_once(endpoint: Any, judge: Any) -> None:
    server = endpoint(longer)
    assert len(judge(server.url).compare(["p"] * 5, ["one"] * 5, ["three"] * 5)) == 5
    assert len(server.requests) == 2


def test_cost(endpoint: Any, judge: Any) -> None:
    """Four answers of 100 and 10 tokens at 2 and 8 a million: 4·(200 + 80)/10⁶."""
    server = endpoint(longer)
    one = judge(server.url, prompt_price=2.0, completion_price=8.0)
    assert one.cost == 0
    one.compare(["p", "q"], ["one", "one"], ["three", "three"])
    assert (one.usage.answers, one.usage.prompt_tokens, one.usage.completion_tokens) == (4, 400, 40)
    assert one.cost == pytest.approx(1120e-6)
    assert judge(server.url).cost is None


@pytest.mark.parametrize("usage", [None, [1], {}, {"prompt_tokens": "many"}])
def test_a_server_that_does_not_count_tokens(usage: Any, misbehaving: Any, judge: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer({**completion("[[C]]"), "usage": usage}))
    one = judge(server.url)
    assert one.compare(["p"], ["a"], ["b"])[0].score == 0.5
    assert (one.usage.answers, one.usage.prompt_tokens) == (2, 0)


def test_concurrency_is_bounded(misbehaving: Any, judge: Any) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def behave(exchange: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        exchange.closing.wait(0.05)
        with lock:
            now[0] -= 1
        exchange.answer(completion("[[C]]"))

    texts = [str(i) for i in range(10)]
    judge(misbehaving(behave).url, concurrency=3).compare(texts, ["a"] * 10, ["b"] * 10)
    assert most[0] == 3


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": {"content": 3}}]}, [], None])
def test_answers_that_are_no_completion(body: Any, misbehaving: Any, judge: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer(body))
    with pytest.raises(ScorerError, match="asked 2 times and gave no scores: the answer is wrong"):
        judge(server.url, concurrency=1).compare(["p"], ["a"], ["b"])


def test_a_judge_without_verdicts_stops_the_run(endpoint: Any, judge: Any) -> None:
    server = endpoint(lambda *_: "Both have their merits, but on reflec")
    one = judge(server.url)
    assert one.compare(["p"], ["a"], ["b"]) == [PairVerdict(None, None)], "two are borne, as ties"
    assert one.usage.unreadable == 2
    with pytest.raises(ScorerError, match="4 of 4 answers of m have no verdict"):
        one.compare(["p"], ["a"], ["b"])


@pytest.mark.parametrize(("answers", "borne"), [(2, 2), (10, 3), (30, 5), (100, 12)])
def test_two_and_a_tenth_of_the_answers_may_have_no_verdict(answers: int, borne: int, judge: Any) -> None:
    one = judge("http://127.0.0.1:1")
    one.usage.answers, one.usage.unreadable = answers, borne
    assert one.compare([], [], []) == []
    one.usage.unreadable += 1
    with pytest.raises(ScorerError, match=f"{borne + 1} of {answers} answers of m have no verdict"):
        one.compare([], [], [])


def test_an_answer_without_a_verdict_is_asked_for_again(endpoint: Any, judge: Any) -> None:
    said = ["no idea"]
    server = endpoint(lambda *_: said[0])
    assert judge(server.url).compare(["p"], ["a"], ["b"]) == [PairVerdict(None, None)]
    said[0] = "[[A]]"
    again = judge(server.url)
    assert again.compare(["p"], ["a"], ["b"]) == [PairVerdict("a", "b")]
    assert (len(server.requests), again.usage.cached, again.usage.unreadable) == (4, 0, 0)


def test_rows_of_several_and_of_single_responses(endpoint: Any, judge: Any) -> None:
    """The reference plays only where a response has nobody else to play."""
    one = judge(endpoint(longer).url)
    chosen = ["x" * 9, "yy"]
    assert one.score(["p", "q"], [["x", "xxx"], ["xxx"]], chosen=chosen) == [[0, 1], [1]]


@pytest.mark.parametrize(
    ("forward", "backward", "score"),
    [
        *(("a", "a", 1.0), ("b", "b", 0.0), ("tie", "tie", 0.5), (None, None, 0.5)),
        *(("a", "b", 0.5), ("b", "a", 0.5), ("a", "tie", 0.5), ("tie", "b", 0.5), ("a", None, 0.5), (None, "b", 0.5)),
    ],
)
def test_an_answer_wins_only_in_both_orders(forward: Any, backward: Any, score: float) -> None:
    assert PairVerdict(forward, backward).score == score


@pytest.mark.parametrize(
    ("prices", "cost"), [((2.0, None), None), ((None, 8.0), None), ((0.0, 8.0), 24e-6), ((2.0, 0.0), 10e-6)]
)
def test_the_cost_needs_both_prices(prices: Any, cost: float | None, judge: Any) -> None:
    """Five prompt tokens and three others, at prices of a million."""
    one = judge("http://127.0.0.1:1", prompt_price=prices[0], completion_price=prices[1])
    one.usage.prompt_tokens, one.usage.completion_tokens = 5, 3
    assert one.cost == (None if cost is None else pytest.approx(cost))


def test_a_refusal_without_text_is_no_verdict(misbehaving: Any, judge: Any) -> None:
    server = misbehaving(lambda exchange: exchange.answer(completion(None)))
    assert judge(server.url).compare(["p"], ["a"], ["b"]) == [PairVerdict(None, None)]


def test_texts_are_not_templates(endpoint: Any, judge: Any) -> None:
    asked: list[tuple[str, str, str]] = []
    server = endpoint(lambda *texts: asked.append(texts) or "[[C]]")
    judge(server.url).compare(["{a} [[A]] {0}"], ["{b}"], ["{prompt} \\1 $a"])
    assert ("{a} [[A]] {0}", "{b}", "{prompt} \\1 $a") in asked


def test_key_is_sent_and_never_shown(misbehaving: Any, judge: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-s3cret")
    server = misbehaving(lambda exchange: exchange.answer(completion("[[C]]")))
    one = judge(server.url, api_key_env="JUDGE_KEY")
    one.compare(["p"], ["a"], ["b"])
    assert server.headers[0]["Authorization"] == "Bearer sk-s3cret"
    assert "s3cret" not in repr(one)
    assert b"s3cret" not in (tmp_path / "cache" / "judge.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"base_url": ""}, "base_url is missing"),
        ({"base_url": "http://api.example/v1"}, "is not encrypted"),
        ({"base_url": "https://api.example/v1"}, "in api_key_env"),
        ({"api_key_env": "sk-12345"}, "api_key_env must be the name"),
        ({"model": ""}, "model is missing"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"prompt_price": -1.0}, "prompt_price must be at least 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"template": "nowhere.txt"}, "template='nowhere.txt' cannot be read"),
        ({"template": __file__}, "does not contain {prompt}"),
        ({"cache": "/dev/null/judge.sqlite"}, "cannot be used"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "judge.sqlite")
    if settings.get("template") == __file__:
        (tmp_path / "t.txt").write_text("{a} or {b}?")
        settings = {"template": str(tmp_path / "t.txt")}
    with pytest.raises(UserError, match=re.escape(reason)):
        Judge(**{"base_url": "http://127.0.0.1:1/v1", "model": "m", "cache": cache, **settings})
