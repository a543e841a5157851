"""Columns that no format reads: harmless only if their names or their values say why.

A column beside answers to imitate may say that they are bad, one beside pairs may say that their sides are turned
round, and a text beside either may be a part of the prompt. Objects, lists and JSON in texts are looked into; what is
inside is named with dots: ``meta.label``.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, cast

from align.data.words import (
    FLAGS,
    FLIPS,
    KNOWN_ANSWERS,
    LABELS,
    LANGUAGES,
    NEUTRAL,
    NOTES,
    PRESENT,
    PROMPTS,
    QUANTITIES,
    RATERS,
    REMARKS,
    SCORES,
    SIDES,
    THINGS,
    VERDICTS,
    WORSE,
    is_about,
    is_kind,
    is_label,
    is_verdict_word,
    words_of,
)

__all__ = ["Gives", "Unread", "is_true_or_false", "judge", "parts", "verdicts"]

Gives = Literal["pairs", "demonstrations", "unpaired", "prompts"]
"""Kind of rows that a format makes."""

_SHORT = 24  # characters of a text that can be the name of something
_CATEGORY = 60  # characters of a text that is one of a few
_SENTENCE = 5  # words that no name of something has
_NOTICE = 100  # characters that the name of a source or the like may have
_FEW = 12  # distinct texts of a column of categories
_SIDES = 4  # distinct values of a column that may be about the order of two answers
_DEEP = 16
_CELLS = 1000  # values that are looked at inside one
_POSITIONS = frozenset({"id", "idx", "index", "number", "order", "pos", "position", "side", "slot"})
_AGREEING = frozenset({"agree", "agreed", "agreement", "agrees", "correct", "first", "right", "valid", "wins", "won"})
_TURNING = _AGREEING | LABELS | WORSE
_DIFFERENCES = frozenset({"advantage", "delta", "diff", "difference", "gap", "margin", "strength"})
_PROBABILITIES = frozenset({"likelihood", "p", "pr", "prob", "probability", "probs"})
_TIMES = frozenset({"date", "hours", "minutes", "ms", "seconds", "time"})
_CALLED = frozenset({"a", "b", "model_a", "model_b", "response_a", "response_b", "first", "second", "left", "right"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*(?:%|/\s*\d+|stars?)?|[★☆⭐]+", re.IGNORECASE)
_LOWER = frozenset({"error", "errors", "harm", "loss", "perplexity", "ppl", "rank", "toxicity"})
_TIES = frozenset({"both", "draw", "equal", "n/a", "nan", "neither", "same", "tie", "unsure"})
_MEDIA = re.compile(
    r"^(?!https?:).*\.(?:png|jpe?g|gif|webp|bmp|tiff?|wav|mp3|flac|ogg|mp4|avi|mov|mkv|webm)$", re.I | re.S
)
"""Names of files with images, sound or video."""
_BRACKETS = frozenset("[{ \t\n")
_WRITTEN = re.compile(r"""\s*[\[{][\[{\s]*(?:["'\d-]|true|false|null|True|False|None)""")
_AS_IT_IS = frozenset({"", "0", "0.0", "false", "no", "none", "normal", "original", "unchanged"})


@dataclass(frozen=True)
class Unread:
    """Columns that a format does not read although they may matter; all empty where none does."""

    verdicts: list[str] = field(default_factory=list[str])
    """May say that an answer to imitate is a bad one."""
    turns: list[str] = field(default_factory=list[str])
    """May say that the sides of a pair are the other way round."""
    parts: list[str] = field(default_factory=list[str])
    """May be a prompt, an answer or a label, or a part of one."""

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return sorted({*self.verdicts, *self.turns, *self.parts})


def judge(columns: Mapping[str, Sequence[Any]], gives: Gives, *, seen: Collection[str] = ()) -> Unread:
    """Return which of the columns that are not read may matter beside rows of this kind.

    Those `seen` were judged in earlier rows: they are no part of the prompt, and only what single values say counts.
    """
    found = Unread()
    for name, values in sorted(columns.items()):
        given = [value for value in values if _is_given(value)]
        if not given:
            continue
        few = name not in seen
        if gives == "demonstrations" and (said := verdicts(name, given, few=few)):
            found.verdicts.extend(said)
        elif gives in ("pairs", "unpaired") and (said := _turns(name, given, few=few and gives == "pairs")):
            found.turns.extend(said)
        elif gives == "pairs" and _contradicts_sides(name, columns):
            found.turns.append(name)
        elif name not in seen:
            found.parts.extend(parts(name, _unusual(given), any_text=gives != "pairs"))
    return found


def _unusual(values: list[Any]) -> list[Any]:
    """Return the values without a short text that most of them are, such as "none"; all where there is no other."""
    counts = Counter(value for value in values if isinstance(value, str))
    usual, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    rest = [value for value in values if value != usual]
    return rest if rest and 2 * count > len(values) and len(usual) <= _SHORT else values


def verdicts(name: str, values: Sequence[Any], *, few: bool = True) -> list[str]:
    """Return what may say how good an answer is, of a column and of what is inside its objects.

    `few`: a column of few short texts may, whatever they are, if its name does not say what else they are.
    """
    return [inner for inner, cells in _leaves(name, values).items() if _is_verdict(inner, cells, few)]


def _is_verdict(name: str, cells: list[Any], few: bool) -> bool:
    own = words_of(name.rpartition(".")[2])
    if FLAGS.issuperset(own) and {*own} - {"hide", "skip"} and all(map(is_true_or_false, cells)):
        return False
    texts = [cell for cell in cells if isinstance(cell, str) and not _is_number(cell)]
    if any(isinstance(cell, bool) for cell in cells) or not PRESENT.isdisjoint(own):
        return True
    if 2 * sum(map(_is_number, cells)) > len(cells) and not _is_number_about(name, own):
        return True
    if texts and {text.strip().lower() for text in texts} <= {"y", "n"}:
        return True
    if said := [text for text in texts if is_verdict_word(text)]:
        if not LANGUAGES.isdisjoint(own):  # "no" is Norwegian
            return False
        return len({*texts}) <= _FEW or 2 * len(said) > len(texts)
    if few and not is_kind(name) and _are_few({*texts}, len(texts), _FEW):
        return True
    return bool(texts) and any(is_label(part, LABELS | SCORES | REMARKS) for part in name.split("."))


def _are_few(said: Collection[str], count: int, most: int) -> bool:
    """Return whether short texts are a few that come again and again."""
    return 2 <= len(said) <= most and 2 * len(said) <= count and max(map(len, said)) <= _SHORT


def _is_number_about(name: str, own: list[str]) -> bool:
    """Return whether a number is named for what it counts, all of its words being known to be about a row."""
    if not LANGUAGES.isdisjoint(own):
        return True
    if not KNOWN_ANSWERS.isdisjoint(own) and not {"answer", "solution"}.isdisjoint(own):
        return True
    known = all(len(word) == 1 or word in QUANTITIES | THINGS for word in own)
    return known and not QUANTITIES.isdisjoint(own) and (LABELS | SCORES | VERDICTS).isdisjoint(words_of(name))


def _turns(name: str, values: Sequence[Any], *, few: bool) -> list[str]:
    """Return what may say that sides are turned round, of a column and of what is inside its objects."""
    if few and _changes_order(values):
        return [name]
    leaves = _leaves(name, values, lists=False)
    return [inner for inner, cells in leaves.items() if _turns_sides(inner, cells, few)]


def _changes_order(values: Sequence[Any]) -> bool:
    """Return whether a column of two numbers has the first one larger in some rows, and the second one in others."""
    twos = [opened for value in values if isinstance(opened := _opened(value), list) and len(opened) == 2]
    pairs = [two for two in twos if all(isinstance(number, int | float) for number in two)]
    return 2 * len(pairs) > len(values) and len({a > b for a, b in pairs if a != b}) > 1


def _turns_sides(name: str, cells: list[Any], few: bool) -> bool:
    own = {*words_of(name.rpartition(".")[2])}
    said = {str(cell).strip().lower().removesuffix(".0") for cell in cells} - _TIES
    if any(len(text) > _SHORT for text in said):
        return False
    if not own.isdisjoint(FLIPS):
        return not is_about(name) and not said <= _AS_IT_IS
    if (said <= {"-1", "0", "1", "+1"} and "-1" in said) or said == {"-", "+"}:
        return True
    if not own.isdisjoint(_DIFFERENCES) and own.isdisjoint(_TIMES):
        return any(_is_number(text) and text.startswith("-") for text in said)
    if said <= {"0", "1", "2", *_CALLED} and not own.isdisjoint(_POSITIONS) and "model" not in own:
        if not own.isdisjoint(SIDES | LABELS | {"correct", "gold"}):
            return said != {"0"}
        return len(said) > 1 and own <= {"order", "pos", "position", "side", "slot"}
    if said <= {"0", "1", "true", "false"}:
        expected = {"1", "true"} if len(own & WORSE) % 2 == 0 else {"0", "false"}
        named = {word for word in own - FLAGS if len(word) > 1}
        sides = not is_about(name) and bool(named) and named <= SIDES
        if (sides or not own.isdisjoint(_TURNING)) and not said <= expected:
            return True
    if any(not FLIPS.isdisjoint(words_of(text)) for text in said) or "rejected" in said <= {"chosen", "rejected"}:
        return True
    if len(said) > 1 and said <= _CALLED:
        return True
    return few and _are_few(said, len(cells), _SIDES) and not _is_harmless(name, own, said)


def _is_harmless(name: str, own: Collection[str], said: Collection[str]) -> bool:
    """Return whether the name of a column of few values says that they are not about the order of two answers."""
    if FLAGS.issuperset(own) and {*own} - {"hide", "skip"}:
        return True
    return is_kind(name) or (all(map(_is_number, said)) and _is_number_about(name, words_of(name)))


def _contradicts_sides(name: str, columns: Mapping[str, Sequence[Any]]) -> bool:
    """Return whether numbers say that the chosen side is worse: than the rejected one, or than not."""
    other = re.sub(r"(?<![a-z])c$", "r", name.replace("chosen", "rejected"))
    if other == name or other not in columns:
        return _is_less_likely(name, columns[name])
    if _is_number_about(name, words_of(name)):
        return False
    both = list(zip(columns[name], columns[other], strict=False))
    pairs = [(float(a), float(b)) for a, b in both if isinstance(a, int | float) and isinstance(b, int | float)]
    lower = not _LOWER.isdisjoint(words_of(name))
    against = sum(a > b if lower else a < b for a, b in pairs)
    return against > max(2, 0.1 * len(pairs))


def _is_less_likely(name: str, values: Sequence[Any]) -> bool:
    """Return whether it may be the probability that the chosen side is better, and is below one half in a row."""
    own = {*words_of(name)}
    named = own & _PROBABILITIES and not own & WORSE and own <= _PROBABILITIES | SIDES | LABELS
    numbers = [value if isinstance(value, int | float) else -1 for value in values if _is_given(value)]
    return bool(named) and 0 <= min(numbers) < 0.5 and max(numbers) <= 1


def parts(name: str, values: Sequence[Any], *, any_text: bool) -> list[str]:
    """Return what may be a prompt, an answer or a label, of a column and of what is inside its objects.

    Args:
        name: Of the column.
        values: Without nulls.
        any_text: Any column of long texts or lists does, whatever it is called: beside anything but pairs.
    """
    if 2 * sum(isinstance(value, str) and _MEDIA.search(value) is not None for value in values) > len(values):
        return [name]
    if 2 * sum(_opened(value) is not None for value in values) <= len(values):
        return [name] if _is_part(name, values, any_text) else []
    words = {word for word in words_of(name) if len(word) > 1} - NEUTRAL
    if is_about(name) or (not any_text and _is_note(name)):
        return (
            [name] if _is_part(name, [" ".join(texts) for value in values if (texts := _flat(value))], any_text) else []
        )
    inside = _leaves(name, values)
    turns = {f"{name}.role", f"{name}.content"}, {f"{name}.from", f"{name}.value"}
    if inside and (not words.isdisjoint(SIDES | PROMPTS | LABELS) or any(both <= inside.keys() for both in turns)):
        return [name]
    if any(map(_are_tools, values)):
        return [name]
    lists = [" ".join(texts) for value in values if (texts := _flat(value))]
    if lists:
        return [name] if (any_text and not is_kind(name)) or _is_part(name, lists, any_text) else []
    found = [inner for inner, cells in inside.items() if _is_part(inner, cells, any_text)]
    return found if isinstance(_opened(values[0]), Mapping) else [name] * bool(found)


def _is_part(name: str, cells: Sequence[Any], any_text: bool) -> bool:
    last = name.rpartition(".")[2]
    words = {word for word in words_of(last) if len(word) > 1} - NEUTRAL
    texts = [cell for cell in cells if isinstance(cell, str)]
    if 2 * len(texts) > len(cells):
        differ = 10 * len({*texts}) > 9 * len(texts) and len(texts) > 2
        prose = 2 * sum(map(_is_prose, texts)) > len(texts) and not _is_category(texts)
        if is_about(last) or is_kind(last):
            if differ and 2 * sum(len(text.split()) >= _SENTENCE for text in texts) > len(texts):
                return True
            return prose and max(map(len, texts)) > _NOTICE and (any_text or len({*texts}) > 1)
        varies = len({*texts}) > 1 or len(texts) == 1
        if prose and (any_text or (varies and not _is_note(name))):
            return True
        if len(texts) > 2 and 2 * len({*texts}) > len(texts) and not _is_name(last, words, texts):
            return any_text or not _is_note(name)
        named = words & (SIDES | PROMPTS)
        if named and (any_text or prose or words == named):
            return any_text or not _is_note(name)
    return not is_about(last) and not words.isdisjoint(LABELS)


def _is_name(name: str, words: Collection[str], texts: Sequence[str]) -> bool:
    """Return whether short texts that differ are numbers, names or addresses of something, or known answers."""
    if not KNOWN_ANSWERS.isdisjoint(words) or any(text.startswith(("http://", "https://", "/")) for text in texts):
        return True
    return 2 * sum(map(_is_number, texts)) > len(texts) or is_label(name, LABELS | SCORES)


def _is_note(name: str) -> bool:
    """Return whether a text is named as one about the answers or the row, which is no part of a prompt."""
    words = words_of(name)
    return bool(words) and words[-1] in NOTES and (SIDES | LABELS | SCORES | NOTES | RATERS).issuperset(words)


def _is_prose(text: str) -> bool:
    """Return whether a text is of some length and no name, hash or address."""
    return len(text) > _SHORT and not (text.isascii() and text.isprintable() and " " not in text)


def _is_category(texts: Sequence[str]) -> bool:
    return 5 * len({*texts}) <= len(texts) and max(map(len, texts)) <= _CATEGORY


def _flat(value: object) -> list[str] | None:
    """Return the texts of a list and of the lists in it; None where there is anything else but a number."""
    opened = _opened(value)
    if not isinstance(opened, list):
        return None
    found: list[str] = []
    for item in opened:
        if isinstance(item, list):
            inner = _flat(cast(list[Any], item))
            if inner is None:
                return None
            found += inner
        elif isinstance(item, str | int | float):
            found.append(str(item))
        else:
            return None
    return None if all(map(_is_number, found)) else found


def _are_tools(value: object) -> bool:
    """Return whether a value is a list of functions: objects with a name and a description or parameters."""
    opened = _opened(value)
    items = opened if isinstance(opened, list) else []
    fields = [{*cast(Mapping[str, Any], item)} if isinstance(item, Mapping) else set[str]() for item in items]
    return bool(fields) and all("name" in names and names & {"description", "parameters"} for names in fields)


def is_true_or_false(value: object) -> bool:
    """Return whether a value is a boolean, also one written as text, as in CSV."""
    return str(value).strip().lower() in ("true", "false")


def _is_given(value: object) -> bool:
    return value is not None and value == value and value != "" and value != [] and value != {}


def _is_number(cell: object) -> bool:
    """Return whether a value is a number, also one written as text: ``3.0``, ``3/5``, ``80%``, ``4 stars``."""
    if isinstance(cell, str):
        return _NUMBER.fullmatch(cell.strip()) is not None
    return isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)


def _leaves(name: str, values: Sequence[Any], *, lists: bool = True) -> dict[str, list[Any]]:
    """Return the values inside objects, and in `lists`, under their names with dots; others under the name itself."""
    found: dict[str, list[Any]] = {}
    for value in values:
        if isinstance(value, int | float) or (isinstance(value, str) and value[:1] not in _BRACKETS):  # as most are
            if _is_given(value):
                found.setdefault(name, []).append(value)
            continue
        for count, (inner, cell) in enumerate(_inside(name, value, _DEEP, lists)):
            if count == _CELLS:
                break
            found.setdefault(inner, []).append(cell)
    return found


def _inside(name: str, value: Any, depth: int, lists: bool) -> Iterator[tuple[str, Any]]:
    opened = _opened(value) if depth else None
    if isinstance(opened, Mapping):
        for key, item in opened.items():
            yield from _inside(f"{name}.{key}", item, depth - 1, lists)
    elif opened is not None:
        for item in opened if lists else ():
            yield from _inside(name, item, depth - 1, lists)
    elif _is_given(value):
        yield name, value


def _opened(value: Any) -> Mapping[str, Any] | list[Any] | None:
    """Return an object or a list, also one that was written as text (JSON, or `str` as in CSV); None for others."""
    if isinstance(value, str) and _WRITTEN.match(value):
        for parse in (json.loads, _evaluated):
            try:
                value = parse(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if isinstance(value, Mapping):
        return cast(Mapping[str, Any], value)
    return cast(list[Any], value) if isinstance(value, list) else None


def _evaluated(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a backslash in a text that is no Python
        return ast.literal_eval(text)
