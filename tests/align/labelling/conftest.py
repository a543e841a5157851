"""Sessions with answers made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from align.labelling.pairs import Answer, Pair
from align.labelling.session import Session

SETTINGS: dict[str, Any] = {"policy": "runs/one", "against": None, "seed": 0}


def made_pair(number: int, first: str = "", second: str = "", *, gap: float | None = None, **row: Any) -> Pair:
    """The pair ``p<number>``; its answers are ``first <number>`` and ``second <number>`` unless they are given."""
    scores = (None, None) if gap is None else (1.0, 1.0 - gap)
    texts = (first or f"first {number}", second or f"second {number}")
    answers = [Answer(text, [number, i], True, scores[i]) for i, text in enumerate(texts)]
    return Pair(f"p{number}", {"prompt": f"Question {number}?", "drawn_with": "t", **row}, (answers[0], answers[1]))


class Begin(Protocol):
    def __call__(self, *pairs: Pair, count: int = 6, **settings: Any) -> Session: ...


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begin a session in one folder with these pairs, or with as many made-up ones."""

    def call(*pairs: Pair, count: int = 6, **settings: Any) -> Session:
        session = Session.begin(tmp_path / "session", {**SETTINGS, **settings})
        session.add(pairs or [made_pair(i) for i in range(count)])
        return session

    return call
