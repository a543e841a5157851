"""Rules on the text alone: length, format, repetition, language. All scores are in [0, 1]."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from langdetect import detector_factory
from langdetect.lang_detect_exception import LangDetectException

from align.errors import UserError
from reward.tags import ReadsTags
from reward.verdict import Rule, Verdict
from reward.verifiers import bounded

_READ = 10_000  # characters read to detect a language: langdetect's own bound, applied before its regular expressions


@dataclass(frozen=True, kw_only=True)
class Length(Rule):
    """1 between ``minimum`` and ``maximum``, with a linear slope outside.

    With n units: ``n / minimum`` below the minimum, ``max(0, 2 − n / maximum)`` above the maximum (0 at twice the
    maximum). Set both to the same number for a target.
    """

    minimum: int | None = None
    """Fewest units with full score; none: no lower limit."""
    maximum: int | None = None
    """Most units with full score; none: no upper limit."""
    unit: Literal["words", "characters"] = "words"
    """The unit of length; words are separated by white space."""
    name: str = "length"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        low, high = self.minimum, self.maximum
        if low is None and high is None:
            raise UserError("the length scorer has neither `minimum` nor `maximum`; give one or both.")
        if (low is not None and low < 1) or (high is not None and high < 1):
            raise UserError(
                f"length: minimum={low} and maximum={high} must be at least 1; leave out what has no limit."
            )
        if low is not None and high is not None and low > high:
            raise UserError(f"length: minimum={low} is above maximum={high}; exchange them.")

    def judge(self, response: str) -> Verdict:
        """Score one response."""
        n = length(response, self.unit)
        if self.minimum is not None and n < self.minimum:
            return Verdict(n / self.minimum, f"{n} {self.unit}, at least {self.minimum} wanted")
        if self.maximum is not None and n > self.maximum:
            return Verdict(max(0.0, 2 - n / self.maximum), f"{n} {self.unit}, at most {self.maximum} wanted")
        return Verdict(1.0, f"{n} {self.unit}")


@dataclass(frozen=True, kw_only=True)
class Regex(ReadsTags, Rule):
    """1 if the pattern is found in the response, else 0; with ``full`` it must match from end to end.

    The search runs in a process that is killed if it takes too long, since backtracking can be exponential. Such a
    response scores 0.
    """

    pattern: str
    """Regular expression of Python's ``re``; flags go inside, such as ``(?s)`` to let ``.`` match newlines."""
    full: bool = False
    """Match the whole response instead of a part."""
    thinking_tags: tuple[str, ...] = ()
    """Names of the tags around thoughts, which are left out of what is searched; []: the whole response."""
    answer_tags: tuple[str, ...] = ()
    """Names of the tags around the answer, in which alone the pattern is searched; []: the whole response."""
    name: str = "regex"

    def check(self) -> None:
        """The pattern must compile."""
        super().check()
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"regex: pattern={self.pattern!r} is not a regular expression ({error}).") from error

    def judge(self, response: str) -> Verdict:
        """Score one response."""
        return bounded.judge("regex", self.pattern, self.read(response), "full" if self.full else "part")


@dataclass(frozen=True, kw_only=True)
class Repetition(Rule):
    """Distinct n-grams of words divided by all n-grams: 1 without repetition, near 0 for a loop.

    This is 1 + TRL's ``get_repetition_penalty_reward`` (Yeo et al. 2025, appendix C.2) at ``max_penalty=-1``, with
    words instead of tokens. A response of fewer than n words scores 1.
    """

    n: int = 3
    """Words in an n-gram."""
    name: str = "repetition"

    def check(self) -> None:
        """n must be at least 1."""
        if self.n < 1:
            raise UserError(f"repetition: n={self.n} must be at least 1.")

    def judge(self, response: str) -> Verdict:
        """Score one response."""
        words = response.split()
        total = len(words) - self.n + 1
        if total < 1:
            return Verdict(1.0, f"fewer than {self.n} words")
        distinct = len({tuple(words[i : i + self.n]) for i in range(total)})
        return Verdict(distinct / total, f"{distinct} of {total} {self.n}-grams are distinct")


@dataclass(frozen=True, kw_only=True)
class Language(Rule):
    """Probability that the response is in ``language``, by langdetect (seeded); 0 where there are no letters."""

    language: str
    """Langdetect's code of the language: ``en``, ``de``, ``zh-cn`` …"""
    name: str = "language"

    def check(self) -> None:
        """langdetect must know the language."""
        known = languages()
        if self.language not in known:
            raise UserError(f"language: {self.language!r} is not one of {', '.join(known)}.")

    def judge(self, response: str) -> Verdict:
        """Score one response."""
        found = detect_languages(response)
        if not found:
            return Verdict(0.0, "no text whose language can be told")
        return Verdict(found.get(self.language, 0.0), f"looks like {next(iter(found))}")


def length(text: str, unit: Literal["words", "characters"]) -> int:
    """Count words (separated by white space) or characters."""
    return len(text.split()) if unit == "words" else len(text)


def languages() -> list[str]:
    """Return the codes of all languages that can be detected."""
    return sorted(_factory().get_lang_list())


def detect_languages(text: str) -> dict[str, float]:
    """Return the probable languages of the text, most probable first; empty where there are no letters.

    The same text always gives the same answer: langdetect draws at random, here with a fixed seed.
    """
    detector = _factory().create()
    detector.seed = 0
    detector.append(text[:_READ])
    try:
        return {entry.lang: min(1.0, entry.prob) for entry in detector.get_probabilities()}
    except LangDetectException:
        return {}


def _factory() -> Any:
    detector_factory.init_factory()  # reads the profiles once
    return detector_factory._factory  # pyright: ignore[reportPrivateUsage]
