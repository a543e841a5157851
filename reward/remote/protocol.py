"""The protocol between a reward server and its clients, in two dialects; both sides check what they read.

``align``, by default at ``/score``. P prompts with K responses each; columns have one value per prompt::

    → {"id": "5f0c…", "prompts": ["…", …], "responses": [["…", …], …], "columns": {"answer": ["…", …]}}
    ← {"id": "5f0c…", "scores": [[0.5, …], …]}

``openrlhf``, by default at ``/get_reward``, is what OpenRLHF's ``--remote_rm_url`` speaks. One entry per response;
``query`` is prompt and response in one text and the labels are our column ``answer``::

    → {"query": ["…", …], "prompts": ["…", …], "labels": ["…", …]}
    ← {"rewards": [0.5, …]}

It has no request id, so only the number of rewards can be checked. Both answer a mistake with ``{"error": "…"}`` and a
status other than 200.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, cast
from uuid import uuid4

__all__ = ["DIALECTS", "Dialect", "ProtocolError", "Question"]

_TAKEN = frozenset({"self", "prompts", "responses"})  # parameters of every scorer's `score`


class ProtocolError(ValueError):
    """A message breaks the protocol; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Responses (P, K) to be scored."""

    id: str = field(default_factory=lambda: uuid4().hex)
    prompts: Sequence[str]
    responses: Sequence[Sequence[str]]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]])


class Dialect(Protocol):
    """Questions and scores as JSON; reading raises `ProtocolError`."""

    path: str

    def write_question(self, question: Question) -> dict[str, Any]:
        """Return the request's body."""
        ...

    def read_question(self, body: Any) -> Question:
        """Return the question of a request's body."""
        ...

    def write_scores(self, question: Question, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
        """Return the answer's body."""
        ...

    def read_scores(self, question: Question, body: Any) -> list[list[float]]:
        """Return the scores (P, K) of an answer's body."""
        ...


class _Align:
    path = "/score"

    def write_question(self, question: Question) -> dict[str, Any]:
        columns = {name: list(values) for name, values in question.columns.items()}
        responses = [list(row) for row in question.responses]
        return {"id": question.id, "prompts": list(question.prompts), "responses": responses, "columns": columns}

    def read_question(self, body: Any) -> Question:
        fields = _object(body)
        prompts = _texts("prompts", fields.get("prompts"))
        rows = _list("responses", fields.get("responses"), len(prompts), "prompts")
        responses = [_texts(f"responses[{p}]", row) for p, row in enumerate(rows)]
        if len({len(row) for row in responses}) > 1:
            raise ProtocolError("responses must have the same number of texts for each prompt")
        for name in _object(fields.get("columns", {}), "columns").keys() & _TAKEN:
            raise ProtocolError(f"columns.{name} is a name that scorers use themselves; rename the column")
        columns = {
            name: _list(f"columns.{name}", values, len(prompts), "prompts")
            for name, values in _object(fields.get("columns", {}), "columns").items()
        }
        if not isinstance(fields.get("id"), str):
            raise ProtocolError(f"id must be text, not {_shown(fields.get('id'))}")
        return Question(id=fields["id"], prompts=prompts, responses=responses, columns=columns)

    def write_scores(self, question: Question, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
        return {"id": question.id, "scores": [list(row) for row in scores]}

    def read_scores(self, question: Question, body: Any) -> list[list[float]]:
        fields = _object(body)
        if fields.get("id") != question.id:
            raise ProtocolError(f"id is {_shown(fields.get('id'))}, not that of the request")
        rows = _list("scores", fields.get("scores"), len(question.responses), "prompts")
        asked = zip(rows, question.responses, strict=True)
        return [_numbers(f"scores[{p}]", row, len(texts)) for p, (row, texts) in enumerate(asked)]


class _OpenRLHF:
    path = "/get_reward"

    def write_question(self, question: Question) -> dict[str, Any]:
        labels = question.columns.get("answer", [""] * len(question.prompts))
        rows = [
            (prompt + response, prompt, label)
            for prompt, responses, label in zip(question.prompts, question.responses, labels, strict=True)
            for response in responses
        ]
        return {key: [row[i] for row in rows] for i, key in enumerate(("query", "prompts", "labels"))}

    def read_question(self, body: Any) -> Question:
        """OpenRLHF before 0.6 sends ``query`` alone: a response to an empty prompt."""
        fields = _object(body)
        queries = _texts("query", fields.get("query"))
        prompts = _texts("prompts", fields.get("prompts") or [""] * len(queries), len(queries), "queries")
        labels = _list("labels", fields.get("labels") or [""] * len(queries), len(queries), "queries")
        for i, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
            if not query.startswith(prompt):
                raise ProtocolError(f"query[{i}] does not begin with prompts[{i}]")
        return Question(
            prompts=prompts,
            responses=[[query.removeprefix(prompt)] for query, prompt in zip(queries, prompts, strict=True)],
            columns={"answer": labels} if any(labels) else {},  # without a label key OpenRLHF sends empty texts
        )

    def write_scores(self, question: Question, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
        del question
        return {"rewards": [score for row in scores for score in row]}

    def read_scores(self, question: Question, body: Any) -> list[list[float]]:
        counts = [len(row) for row in question.responses]
        values = iter(_numbers("rewards", _object(body).get("rewards"), sum(counts)))
        return [list(islice(values, count)) for count in counts]


DIALECTS: Mapping[str, Dialect] = {"align": _Align(), "openrlhf": _OpenRLHF()}


def _numbers(name: str, value: Any, length: int) -> list[float]:
    """Return the numbers of a row; text, null, true, NaN and infinity are refused."""
    values = _list(name, value, length, "responses")
    for i, number in enumerate(values):
        # false of NaN, infinity and of whole numbers beyond every float
        finite = type(number) in (int, float) and abs(number) <= sys.float_info.max
        if not finite:
            raise ProtocolError(f"{name}[{i}] is {_shown(number)}, not a finite number")
    return [float(number) for number in values]


def _object(value: Any, name: str = "the message") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{name} must be an object, not {_shown(value)}")
    return cast("dict[str, Any]", value)


def _list(name: str, value: Any, length: int | None = None, of: str = "") -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"{name} must be a list, not {_shown(value)}")
    values = cast("list[Any]", value)
    if length is not None and len(values) != length:
        raise ProtocolError(f"{name} has {len(values)} entries for {length} {of}")
    return values


def _texts(name: str, value: Any, length: int | None = None, of: str = "") -> list[str]:
    for i, text in enumerate(_list(name, value, length, of)):
        if not isinstance(text, str):
            raise ProtocolError(f"{name}[{i}] must be text, not {_shown(text)}")
    return value


def _shown(value: Any) -> str:
    """The value as JSON, cut; control characters are escaped."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
