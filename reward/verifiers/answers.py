"""Verifiers of a choice by letter, an exact text, or JSON under a schema. All scores are 0 or 1.

Mathematics is in ``math_answers.py``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from align.errors import UserError
from reward.tags import without_thinking
from reward.verdict import Verdict, Verifier
from reward.verifiers import bounded

_LONGEST_CHOICE = 1_000_000  # characters
_LONGEST_JSON = 100_000
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MARK = (
    r"(?i:(?:\\(?:boxed|fbox)|####|<answer>|(?:answer|option|choice)(?:\W{0,3} is\b:?|\W{0,3}:))"
    r"(?:[({*\s]|\\(?:text|textbf|mathrm|mathbf)\{|(?:the|correct|option|choice)\b){0,6})"
)
_NO_ARTICLE = r"(?!(?<=A)\s(?!(?:because|since|as|and|for|which|but|with|over|not)\b)[a-z])"  # "the answer is A bird"
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Verifier):
    r"""1 if the letter chosen is that of the ``answer`` column ("B", "(B)" or "B. Paris").

    The choice is the last of ``\boxed{B}``, ``#### B``, ``<answer>B</answer>``, "answer is B", "Answer: B", "option is
    B"; without one, the letter that the response begins with ("B", "(B) …", "B. …", "B: …"). Several letters ("B or C",
    "B, C"), or one that is said to be wrong, are no choice.
    """

    letters: str = "ABCDE"
    """The letters to choose from."""
    name: str = "multiple_choice"

    def check(self) -> None:
        """The letters are different capitals."""
        super().check()
        if not re.fullmatch(r"[A-Z]{2,26}", self.letters) or len(set(self.letters)) < len(self.letters):
            raise UserError(f"multiple_choice: letters={self.letters!r} must be two or more different capitals.")

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response."""
        of_answer = self._first(answer)
        if of_answer is None:
            raise UserError(
                f"multiple_choice: the answer {answer[:40]!r} does not begin with one of {self.letters}; "
                "correct the column or set `letters`."
            )
        if len(response) > _LONGEST_CHOICE:
            return Verdict(0.0, f"longer than {_LONGEST_CHOICE} characters")
        response = self.read_marked(response)
        found = self._last(response) or self._first(response)
        if found is None:
            return Verdict(0.0, "no choice found")
        if self._taken_back(response[found.end(1) :]):
            return Verdict(0.0, "more than one choice, or one that is said to be wrong")
        given, right = found.group(1), of_answer.group(1)
        return Verdict(float(given == right), f"chose {given}, right is {right}")

    def _last(self, text: str) -> re.Match[str] | None:
        """Find the letter that the last mark names."""
        marks = re.finditer(rf"{_MARK}(?<![A-Za-z])([{self.letters}])(?![\w'’]){_NO_ARTICLE}", text)
        return next(iter(deque(marks, maxlen=1)), None)

    def _first(self, text: str) -> re.Match[str] | None:
        return re.match(rf"\s*[(*]{{0,3}}([{self.letters}])(?:[).:*]|\s*$)", text)

    def _taken_back(self, rest: str) -> bool:
        """Whether what follows a letter names another one beside it, or says that it is wrong."""
        wrong = r"\s+(?:is|would be|are)\s+(?:not|wrong|incorrect|false)\b"
        close = r"[)*]{0,3}"
        other = rf"[(*]{{0,3}}[{self.letters}](?![\w'’])"
        joined = rf"{close}\s*(?:[,/&+]\s*)?(?:[,/&+]|\b(?:or|and)\b)\s*{other}{_NO_ARTICLE}(?!{close}{wrong})"
        listed = rf"(?:{close}\s+{other})+{close}\s*(?:<|\}}|\.?\s*$)"
        return any(re.match(pattern, rest) for pattern in (joined, listed, close + wrong))


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Verifier):
    """1 if response and ``answer`` are the same text after normalisation.

    Normalised as for SQuAD (Rajpurkar et al. 2016), after Unicode's NFKC: letter case, punctuation, the articles a, an,
    the, and the amount of white space do not count.
    """

    name: str = "exact_match"

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response."""
        response = self.read(response)
        if len(response) > 100 * (len(answer) + 100):  # cannot be the same text; not worth normalising
            return Verdict(0.0, "much longer than the answer")
        same = response != "" and normalize(response) == normalize(answer)
        return Verdict(float(same), "the same text" if same else "different texts")


@dataclass(frozen=True, kw_only=True)
class JsonSchema(Verifier):
    """1 if the response is JSON that is valid under a schema.

    A Markdown code fence around it is removed. Remote references are never fetched. Validation runs in a process that
    is killed if it takes too long.
    """

    schema: Mapping[str, Any] | None = None
    """JSON schema for all prompts; none: each prompt's ``answer`` holds one, as JSON text."""
    name: str = "json_schema"

    def check(self) -> None:
        """The schema must be a valid JSON schema."""
        super().check()
        if self.schema is not None:
            _check_schema(json.dumps(self.schema))

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return one row per prompt, one number per response."""
        if self.schema is not None:
            columns["answer"] = [json.dumps(self.schema)] * len(prompts)
        return super().score(prompts, responses, **columns)

    def read(self, response: str) -> str:
        """As other verifiers, but JSON alone may hold tags in its texts."""
        text = without_thinking(response, self.thinking_tags).strip()
        return text if text[:1] in ("{", "[", '"') else super().read(response).strip()

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response under the schema ``answer``."""
        _check_schema(answer)
        if len(response) > _LONGEST_JSON:
            return Verdict(0.0, f"longer than {_LONGEST_JSON} characters")
        response = self.read(response)
        fenced = _FENCE.fullmatch(response)
        return bounded.judge("schema", answer, fenced.group(1) if fenced else response)


def normalize(text: str) -> str:
    """Return the text without letter case, punctuation, articles and extra white space."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(c for c in text if unicodedata.category(c)[0] != "P")
    return " ".join(_ARTICLES.sub(" ", text).split())


@lru_cache(maxsize=1024)
def _check_schema(text: str) -> None:
    try:
        schema = json.loads(text)
        validator_for(schema).check_schema(schema)
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"json_schema: {text[:60]!r} is not a JSON schema as JSON text ({error}).") from error
    except SchemaError as error:
        raise UserError(f"json_schema: {text[:60]!r} is not a valid schema: {error.message[:200]}.") from error
