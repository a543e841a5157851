"""Requests that come together are scored together, and one that fails spoils no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.reward.remote.reward_clients import Picky, client, question


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


CODE = Picky.score.__code__
BUG = f"{CODE.co_filename}, line {CODE.co_firstlineno + 4}"


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("user", 400, "Column answer is missing: add it."),
        ("bug", 500, f"scorer 'picky' failed at {BUG}, in score: KeyError: 'answer'; correct it."),
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


def test_a_batch_is_the_oldest_row_with_those_of_its_kind(lengths: Any) -> None:
    """At most four responses: two rows of two. Rows of other columns or widths keep their order."""

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
