"""The class of all formats, and the columns that distinguish them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.data.formats.labels import Labels
from align.data.messages import kind
from align.data.schema import DRAWN_COLUMNS, SCORE_COLUMNS
from align.errors import UserError

__all__ = [
    "SHARED_COLUMNS",
    "Format",
    "Sample",
    "UnknownFormatError",
    "is_about",
    "is_label",
    "is_true_or_false",
    "shared_fields",
    "words_of",
]

SHARED_COLUMNS = frozenset({*SCORE_COLUMNS, "prompt_id", "ranking", "tools", "answer", "source", *DRAWN_COLUMNS})
"""Optional columns of the pairwise format that the formats pass on."""

_SIDES = """
    accepted answer answers bad best better candidate candidates chosen completion completions conversation
    conversations dialog dialogue dialogues generation generations good loser losing messages negative output outputs
    positive preferred rejected replies reply response responses summaries summary winner winning worse worst
"""
_LABELS = """
    best better choice chose desirable helpful judgement judgment kto label labels liked preference preferred rank
    ranking ranks selected thumbs verdict vote votes winner winning
"""
_SCORES = """
    acceptable approved correct correctness disliked dislikes downvote downvotes feedback grade harmful helpfulness
    incorrect liked likes passed quality rating ratings reward rewards safe score scores spam stars toxic unsafe
    upvote upvotes valid wrong
"""
_PROMPTS = """
    context functions history image images input instruction instructions prompt prompts query question questions system
    tools video videos audio
"""
_ABOUT = """
    author category count dataset date domain generator hash id idx ids index key lang language length level link model
    models name severity sha source split status subset tag tags time timestamp tokens tstamp type url urls uuid version
    worker
"""
_WORDS_OF_SIDES, _WORDS_OF_LABELS, _WORDS_OF_SCORES, _WORDS_OF_PROMPTS, _WORDS_ABOUT = (
    frozenset(text.split()) for text in (_SIDES, _LABELS, _SCORES, _PROMPTS, _ABOUT)
)
_VERDICTS = frozenset({"accepted", "bad", "good", "negative", "positive", "rejected", "worse", "worst"})
"""Words of sides that, with numbers, say how good an answer is."""
_NEUTRAL = frozenset({"full", "my", "raw", "text", "texts", "the"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NAME = re.compile(r"[!-~]+")  # without a blank, and ASCII alone
_SHORT = 24  # characters of a text that can be the name of something


class UnknownFormatError(UserError):
    """No format fits the columns, or more than one does."""

    def __init__(self, message: str) -> None:
        super().__init__(message.encode(errors="replace").decode())  # columns may have half a character


@dataclass(frozen=True)
class Sample:
    """The first rows of a source, for recognising its format."""

    columns: frozenset[str]
    """The set of columns that most of the rows have."""
    rows: Sequence[Mapping[str, Any]]

    def values(self, name: str) -> list[Any]:
        """Return what a column has, without nulls."""
        return [row[name] for row in self.rows if row.get(name) is not None]

    def judges(self, name: str) -> bool:
        """Return whether a column may say how good an answer is: by its name, or because it is true or false."""
        values = self.values(name)
        is_boolean = bool(values) and self.mostly(name, is_true_or_false)
        side = self.mostly(name, lambda value: kind(value) == "number") and not _VERDICTS.isdisjoint(words_of(name))
        return is_boolean or (bool(values) and (side or is_label(name, _WORDS_OF_LABELS | _WORDS_OF_SCORES)))

    def mostly(self, name: str, check: Callable[[Any], bool]) -> bool:
        """Return whether more than half of what a column has passes the check."""
        values = self.values(name)
        return 2 * sum(map(check, values)) > len(values)

    def carries(self, name: str, *, any_text: bool) -> bool:
        """Return whether a column holds a prompt, an answer or a label, judged by its name and by what it has.

        `any_text`: any column of long texts or lists does, whatever its name.
        """
        values = self.values(name)
        if not any(value not in ([], "", {}) for value in values):
            return False
        words = {word for word in words_of(name) if len(word) > 1} - _NEUTRAL
        usual = Counter(kind(value) for value in values).most_common(1)[0][0]
        parts = words & (_WORDS_OF_SIDES | _WORDS_OF_PROMPTS)
        prose = usual == "text" and self.mostly(name, _is_prose)
        if prose and any_text:
            return True
        if is_about(name):
            return False
        if usual in ("messages", "object", "list"):
            return any_text or bool(parts)
        if usual == "text" and parts and (any_text or prose or words == parts):
            return True
        return bool(words & _WORDS_OF_LABELS)


def is_label(name: str, words: frozenset[str] = _WORDS_OF_LABELS | _WORDS_OF_SIDES) -> bool:
    """Return whether a column is named like a label or a side of a pair; ``kto_tag`` is one."""
    return "kto" in words_of(name) or (not is_about(name) and not words.isdisjoint(words_of(name)))


def is_true_or_false(value: object) -> bool:
    """Return whether a value is a boolean, also one written as text, as in CSV."""
    return str(value).strip().lower() in ("true", "false")


def is_about(name: str) -> bool:
    """Return whether a column says something about a row, such as ``prompt_id`` or ``chosen_model``."""
    last = words_of(name)[-1:]
    return bool(last) and last[0] in _WORDS_ABOUT


def words_of(name: str) -> list[str]:
    """Return the words of a column's name: ``chosenAnswer_id`` is chosen, answer, id."""
    return [word.lower() for word in _WORD.findall(name)]


def _is_prose(value: object) -> bool:
    """Return whether a value is a text of some length that is no name, hash or address."""
    return isinstance(value, str) and len(value) > _SHORT and not _NAME.fullmatch(value)


def _always(_: Sample) -> bool:
    return True


def _nothing(_: Any) -> Iterable[Mapping[str, Any]]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of preference data."""

    name: str
    description: str
    """One line for lists and help texts."""
    polarity: str
    """The side that becomes `chosen`, with the reason."""
    requires: frozenset[str]
    """Columns that every file of this format has."""
    one_of: tuple[frozenset[str], ...] = ()
    """Columns of which every file has at least one, of each set."""
    convert: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]] = _nothing
    """One raw row → fields of the pairwise format for each of its pairs; raises `RowError`."""
    gather: str | None = None
    """Column whose value rows that follow each other share when they are one ranking."""
    convert_group: Callable[[Sequence[Mapping[str, Any]]], Iterable[Mapping[str, Any]]] = _nothing
    """As `convert`, for the rows that `gather` puts together."""
    gives: Literal["pairs", "demonstrations", "unpaired", "prompts"] = "pairs"
    """Kind of rows that it makes; rankings are pairs."""
    recognises: Callable[[Sample], bool] = _always
    """A further check of rows that have the required columns."""
    labels: Labels | None = None
    """The columns that say which answer is better, if it is not said by their names alone."""
    optional: frozenset[str] = SHARED_COLUMNS
    """Columns that are read if they exist."""

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read; others are reported as not read."""
        return self.requires.union(self.optional, *self.one_of)

    @property
    def looks(self) -> bool:
        """True if it looks at values, not at the names of columns alone."""
        return self.recognises is not _always

    def fits(self, sample: Sample) -> bool:
        """Return whether the sample has the required columns, passes `recognises`, and leaves nothing out.

        A column that is not read must not hold a prompt, an answer or a label: what looks like one would be dropped.
        """
        return not self.lacks(sample) and self.recognises(sample) and not self.left_out(sample)

    def unknown_labels(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return why the labels of the rows cannot be relied on; nothing if they can."""
        return "" if self.labels is None else self.labels.refusal(rows)

    def lacks(self, sample: Sample) -> list[str]:
        """Return the columns that the format needs and the sample does not have."""
        choices = [" or ".join(sorted(names)) for names in self.one_of if not names & sample.columns]
        return [*sorted(self.requires - sample.columns), *choices]

    @property
    def needs(self) -> int:
        """Number of columns that every file of this format has."""
        return len(self.requires) + len(self.one_of)

    def left_out(self, sample: Sample) -> list[str]:
        """Return the columns that hold a prompt, an answer or a label and are not read."""
        any_text = self.gives != "pairs"
        unread = sorted(sample.columns - self.columns)
        judging = self.judging(sample)
        return [name for name in unread if name in judging or sample.carries(name, any_text=any_text)]

    def judging(self, sample: Sample) -> list[str]:
        """Return the columns that are not read and may say that an answer to imitate is a bad one."""
        if self.gives != "demonstrations" or not self.requires.isdisjoint({"chosen", "text"}):
            return []
        return [name for name in sorted(sample.columns - self.columns) if sample.judges(name)]


def shared_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optional columns of the pairwise format that the row has."""
    return {name: row[name] for name in SHARED_COLUMNS if name in row}
