"""Requests to a reward server, and a scorer that fails on some."""

from __future__ import annotations

from typing import Any

from align.errors import UserError
from reward.remote.http import HttpScorer


def client(url: str, **settings: Any) -> HttpScorer:
    return HttpScorer(url=url, **{"timeout": 10.0, "retries": 0, **settings})


def question(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "prompts": ["p", "q"], "responses": [["a"], ["bb"]], "columns": {}, **changes}


class Picky:
    name = "picky"

    def score(self, prompts: Any, _responses: Any, **_columns: Any) -> list[list[Any]]:
        if "user" in prompts:
            raise UserError("Column answer is missing: add it.")
        if "bug" in prompts:
            raise KeyError("answer")
        wrong = {"nan": [float("nan")], "text": ["0.5"], "short": []}
        return [wrong.get(prompt, [1.0]) for prompt in prompts]
