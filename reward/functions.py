"""A Python function as a scorer: one of this project's form, or a reward function written for TRL.

In a configuration the function is named by ``path/to/file.py:name`` or ``package.module:name``. This imports the user's
code, but only when a run uses the scorer.

TRL's functions may return ``None``: "does not apply to this response". TRL leaves such rewards out of its sum over
functions, and a response without any reward out of training. Here `FunctionScorer.score_where_it_applies` returns
them as ``None``, for combinations of scorers (see ``ensemble.py``); `FunctionScorer.score` alone raises an error: a
missing reward is never 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import ScoreTable, check_table, require_all
from align.scoring.identity import code_hash, file_code_hash, settings_identity
from align.settings.type_checks import Settings
from align.system.identity import hashed
from align.system.user_code import import_named

_TRL_NAMES = frozenset({"completions", "completion_ids"})  # one of these parameters means TRL's form


@dataclass(frozen=True, kw_only=True)
class FunctionScorer(Settings):
    """Calls a function on a whole batch.

    The names of the parameters tell two forms apart:

    - ``f(prompts, responses, **columns)``: P prompts, P × K responses; returns P × K numbers.
    - TRL's ``f(completions=…, prompts=…, completion_ids=…, **columns)``: flat lists of P·K; returns P·K numbers or
      ``None``. Columns are repeated for the K responses. Only arguments that the function has are passed.
    """

    function: str | Callable[..., Any]
    """``path/to/file.py:name``, ``package.module:name``, or the function itself."""
    name: str = ""
    """Name in logs and tables; empty: the function's own."""
    conversational: bool | None = None
    """TRL's form: pass prompts (all turns of the data) and completions as lists of messages (true) or as text (false);
    null: as TRL does, by the data: text where the prompt is text, as it is without the column `messages`."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Data columns under other names: ``{solution: answer}`` passes ``answer`` to the parameter ``solution``."""
    tokenizer: str = ""
    """Model whose tokenizer makes TRL's ``completion_ids``; empty: the caller gives the column, P × K lists of ids."""

    def check(self) -> None:
        """Find the function; its form is known before a run begins."""
        if not self.name:
            object.__setattr__(self, "name", _name(self.function))
        parameters = self._parameters  # imports the function, so that a mistake shows before the run begins
        if not self._is_trl and not {"prompts", "responses"} <= parameters.keys():
            raise UserError(
                f"function {self.name!r} has parameters ({', '.join(parameters)}); it needs prompts and responses, or "
                "TRL's completions or completion_ids."
            )
        if any(map(inspect.iscoroutinefunction, (self._callable, type(self._callable).__call__))):
            raise UserError(f"function {self.name!r} is asynchronous; give a function that returns its rewards.")

    def identity(self) -> dict[str, Any]:
        """The settings, and the code of the function wherever it lies."""
        code = code_hash(self._callable)
        if isinstance(self.function, str) and self.function.rpartition(":")[0].endswith(".py"):
            file, _, name = self.function.rpartition(":")
            code = hashed([name, file_code_hash(Path(file))])
        return {**settings_identity(self, without=("function", "name")), "function": code}

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return P × K scores.

        Raises:
            ScorerError: The function returned the wrong shape, NaN, something that is not a number, or ``None``.
        """
        return require_all(self.score_where_it_applies(prompts, responses, **columns), self.name)

    def score_where_it_applies(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> ScoreTable:
        """Return P × K scores, ``None`` where the function does not apply; otherwise as `score`."""
        columns = {**columns, **{new: columns[old] for new, old in self.columns.items() if old in columns}}
        if not self._is_trl:
            arguments = self._accepted({"prompts": prompts, "responses": responses, **columns})
            return check_table(self._callable(**arguments), responses, self.name)
        flat = self._callable(**self._accepted(self._flat(prompts, responses, columns)))
        flat = flat.tolist() if hasattr(flat, "tolist") else flat  # an array or a tensor
        expected = sum(len(row) for row in responses)
        if not isinstance(flat, Sequence) or len(flat) != expected:
            raise ScorerError(f"function {self.name!r} must return a list of {expected} rewards, one per completion.")
        rewards = iter(flat)
        return check_table([[next(rewards) for _ in row] for row in responses], responses, self.name)

    def _flat(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], columns: Mapping[str, Sequence[Any]]
    ) -> dict[str, Any]:
        """Return TRL's keyword arguments, one entry per completion."""
        out: dict[str, Any] = {
            key: [value for value, row in zip(values, responses, strict=True) for _ in row]
            for key, values in columns.items()
            if key != "completion_ids"
        }
        turns = columns.get("messages", [[{"role": None, "content": prompt}] for prompt in prompts])
        out["prompts"], out["completions"] = [], []
        for prompt, own, row in zip(prompts, turns, responses, strict=True):
            as_messages = self.conversational
            if as_messages is None:
                as_messages = any(turn["role"] is not None for turn in own)
            for text in row:
                asked = [_message(turn["role"], turn["content"]) for turn in own] if as_messages else prompt
                out["prompts"].append(asked)
                out["completions"].append([_message("assistant", text)] if as_messages else text)
        if "completion_ids" in columns:
            out["completion_ids"] = [list(ids) for row in columns["completion_ids"] for ids in row]
        elif self.tokenizer:
            out["completion_ids"] = [self._encode(text) for row in responses for text in row]
        return out

    def _accepted(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        parameters = self._parameters
        missing = [
            key
            for key, parameter in parameters.items()
            if key not in arguments
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        if missing:
            remedy = "set `tokenizer`" if missing == ["completion_ids"] else "rename one with `columns`"
            raise UserError(
                f"function {self.name!r} needs {', '.join(missing)}, which is not a column of the data "
                f"({', '.join(arguments)}); add it or {remedy}."
            )
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return dict(arguments)
        return {key: value for key, value in arguments.items() if key in parameters}

    @property
    def _is_trl(self) -> bool:
        return not _TRL_NAMES.isdisjoint(self._parameters)

    @cached_property
    def _callable(self) -> Callable[..., Any]:
        return import_named(self.function, "function") if isinstance(self.function, str) else self.function

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        if not callable(self._callable):
            raise UserError(f"function: {self.function!r} is not a function.")
        return inspect.signature(self._callable).parameters

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self.tokenizer, trust_remote_code=False)
        return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _name(function: str | Callable[..., Any]) -> str:
    if isinstance(function, str):
        return function.rpartition(":")[2]
    return str(getattr(function, "__name__", type(function).__name__))


def _message(role: str | None, content: str) -> dict[str, str]:
    """Return a new message; plain text, which has no role, is the user's."""
    return {"role": role or "user", "content": content}
