"""IFEval: accuracy of following the verifiable instructions in a prompt (Zhou et al. 2023).

The instructions of a prompt are in the columns ``instruction_id_list`` and ``kwargs`` as published, or, in data of this
project's form, in ``answer`` as JSON: ``{"instruction_id_list": [...], "kwargs": [...]}``.

Strict: each instruction is checked on the response as it is, without thoughts and answer tags (``reward/tags.py``).
Loose (section 2.3 of the paper): an instruction counts as followed if it is followed in any of the eight texts made by
removing, or not, the first line, the last line and all asterisks. An empty text follows nothing.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from align.errors import UserError, did_you_mean
from reward.tags import ReadsTags
from reward.verifiers.instructions import CHECKS

LONGEST = 200_000  # characters; a longer response follows nothing


@dataclass(frozen=True)
class Instruction:
    """One verifiable instruction."""

    id: str
    arguments: Mapping[str, Any]

    @classmethod
    def read(cls, identity: str, arguments: Mapping[str, Any] | None) -> Instruction:
        """Check id and arguments; null arguments, which some editions of the data have, are ignored.

        Raises:
            UserError: An unknown id, or missing or unknown arguments.
        """
        if identity not in CHECKS:
            raise UserError(f"ifeval: instruction {identity!r} is unknown.{did_you_mean(identity, CHECKS)}")
        given = {key: value for key, value in (arguments or {}).items() if value is not None}
        wanted = list(inspect.signature(CHECKS[identity]).parameters)[1:]
        if sorted(given) != sorted(wanted):
            raise UserError(
                f"ifeval: {identity} takes the arguments ({', '.join(wanted)}), its `kwargs` has "
                f"({', '.join(given)}); correct the row."
            )
        for key, value in given.items():
            if key.endswith("relation") and value not in ("at least", "less than"):
                raise UserError(f"ifeval: {identity}: {key}={value!r} is neither 'at least' nor 'less than'.")
        return cls(identity, given)

    def followed(self, response: str) -> bool:
        """Return True if a text follows the instruction."""
        if not response.strip() or len(response) > LONGEST:
            return False
        return CHECKS[self.id](response, **self.arguments)


@dataclass(frozen=True, kw_only=True)
class IFEval(ReadsTags):
    """Accuracy of following instructions, in [0, 1]."""

    level: Literal["prompt", "instruction"] = "prompt"
    """``prompt``: 1 if all instructions are followed, else 0; ``instruction``: the share that is followed."""
    loose: bool = False
    """The paper's loose accuracy instead of the strict one."""
    name: str = "ifeval"

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        *,
        instruction_id_list: Sequence[Sequence[str]] | None = None,
        kwargs: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        answer: Sequence[Any] | None = None,
        **_columns: Sequence[Any],
    ) -> list[list[float]]:
        """Return P × K accuracies.

        Raises:
            UserError: The instructions are missing or wrong.
        """
        if instruction_id_list is None or kwargs is None:
            if answer is None:
                raise UserError(
                    "ifeval needs the columns `instruction_id_list` and `kwargs`, or both as JSON in `answer`."
                )
            per_prompt = [instructions_from_json(text) for text in answer]
        else:
            per_prompt = [read_instructions(*pair) for pair in zip(instruction_id_list, kwargs, strict=True)]
        table: list[list[float]] = []
        for _, row, instructions in zip(prompts, responses, per_prompt, strict=True):
            texts = map(self.read, row)
            table.append([self._accuracy(follow_list(text, instructions, loose=self.loose)) for text in texts])
        return table

    def _accuracy(self, followed: list[bool]) -> float:
        return float(all(followed)) if self.level == "prompt" else sum(followed) / len(followed)


def follow_list(response: str, instructions: Sequence[Instruction], *, loose: bool = False) -> list[bool]:
    """Return for each instruction whether the response follows it."""
    texts = loose_texts(response) if loose else [response]
    return [any(instruction.followed(text) for text in texts) for instruction in instructions]


def loose_texts(response: str) -> list[str]:
    """Return the response without first line, last line, asterisks, in all eight combinations."""
    lines = response.split("\n")
    texts: list[str] = []
    for first, last, stars in product((False, True), repeat=3):
        part = "\n".join(lines[first : len(lines) - last])
        part = part.strip() if first or last else part
        texts.append(part.replace("*", "") if stars else part)
    return texts


def read_instructions(ids: Sequence[str], arguments: Sequence[Mapping[str, Any] | None]) -> list[Instruction]:
    """Read the instructions of one prompt.

    Raises:
        UserError: There is none, the numbers of ids and arguments differ, or one of them is wrong.
    """
    if not ids or len(ids) != len(arguments):
        raise UserError(
            f"ifeval: a prompt has {len(ids)} instruction ids and {len(arguments)} `kwargs`; give as many of "
            "both, at least one."
        )
    return [Instruction.read(*pair) for pair in zip(ids, arguments, strict=True)]


def instructions_from_json(text: Any) -> list[Instruction]:
    """Read the instructions of one prompt from the ``answer`` column.

    Raises:
        UserError: The text is not such JSON; or as `read_instructions`.
    """
    try:
        row = json.loads(text)
        ids, arguments = row["instruction_id_list"], row["kwargs"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"ifeval: `answer` must be JSON with instruction_id_list and kwargs; it is {str(text)[:60]!r}."
        ) from error
    return read_instructions(ids, arguments)
