"""Columns under other names: the mapping that a user gives, and the one that a refusal proposes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from align.data.formats.base import Sample
from align.data.formats.demonstrations import KTO, KTO_ALPACA, KTO_MESSAGES
from align.data.formats.labelled import LABELLED
from align.data.formats.labels import shown_labels
from align.data.formats.parts import CONVERSATIONS
from align.data.formats.rankings import are_candidates
from align.data.formats.turn_marks import answer_start
from align.data.load_report import RowError
from align.data.messages import kind, read_tools
from align.data.reading import RawRow
from align.data.unread import is_true_or_false
from align.data.words import is_about, is_label, words_of
from align.errors import UserError, did_you_mean

__all__ = ["Renaming", "after", "proposed", "shown_columns", "shown_names", "unclear_label", "written"]

_PATH = re.compile(r"[^.\[\]]+|\[-?\d+\]")
_PROMPTS = (
    "prompt",
    "question",
    "instruction",
    "problem",
    "query",
    "request",
    "task",
    "input",
    "context",
    "history",
    "text",
)
_ANSWERS = ("answer", "response", "completion", "output", "solution", "reply", "target", "summary")
_GOOD = ("chosen", "accepted", "preferred", "better", "best", "good", "winner", "winning", "positive", "correct")
_BAD = ("rejected", "worse", "worst", "bad", "loser", "losing", "negative", "incorrect", "dispreferred")
_LABELS = ("better", "winner", "preferred", "preference", "label", "choice", "choose", "vote", "verdict", "best")
_PAIRS_OF_MARKS = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"), ("left", "right"), ("first", "second"))
_RATINGS = ("score", "rating", "reward", "rank", "quality", "helpfulness", "vote")
_JUDGED = (KTO, KTO_ALPACA, KTO_MESSAGES)
_POSITIVE_WORDS = """
    accepted approved chosen correct desirable good helpful kto label like liked positive preferred thumb thumbs upvote
    upvoted vote
"""
_POSITIVE = frozenset(_POSITIVE_WORDS.split())
_BESIDE = frozenset({"a", "human", "is", "my", "response", "tag", "the", "up", "user", "was"})
_BADNESS = frozenset({"error", "errors", "harm", "harmfulness", "loss", "losses", "penalty", "perplexity", "toxicity"})
"""Words of numbers of which the lower is better."""
_OF_LABELS = frozenset(
    {
        *_LABELS,
        "answer",
        "chosen",
        "human",
        "id",
        "idx",
        "index",
        "labels",
        "my",
        "output",
        "response",
        "the",
        "winning",
    }
)
"""Words that alone make up the name of a label of two answers: with others it may name the worse one."""
_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][\w.-]*(?: [\w.-]+)*", re.ASCII | re.IGNORECASE)
_SHOWN = 8  # columns in a message


@dataclass(frozen=True)
class Renaming:
    """Columns under the names of the pairwise format."""

    steps: Mapping[str, tuple[str | int, ...]]
    """New name → column and path into it."""

    @classmethod
    def of(cls, head: Iterable[RawRow], columns: Mapping[str, str | None], source: str) -> Renaming:
        """Check names against the first rows.

        Args:
            head: The first rows, as they are in the source.
            columns: New name → column, or a path into one: ``conversations[0].value``; None: no change.
            source: For messages.

        Raises:
            UserError: No row has such a column, or another has the new name already.
        """
        paths = {new: old for new, old in columns.items() if old is not None and old != new}
        rows = [cast(Mapping[str, Any], row.value) for row in head if isinstance(row.value, Mapping)] if paths else []
        found = {str(name) for row in rows for name in row}
        steps: dict[str, tuple[str | int, ...]] = {}
        for new, old in paths.items():
            steps[new] = (old,) if old in found else _steps(old)
            root = str(steps[new][0])
            if root not in found:
                raise UserError(
                    f"{source}: data.columns.{new}={old}, but no row has the column {root!r}; there are "
                    f"{', '.join(sorted(found))}.{did_you_mean(root, found)}"
                )
            if new in found and new not in {str(path[0]) for path in steps.values()} and new not in paths.values():
                raise UserError(
                    f"{source}: data.columns.{new}={old}, but there is a column {new!r} as well; remove or rename one."
                )
        return cls(steps)

    def __call__(self, row: RawRow) -> RawRow:
        """Return the row with the new names."""
        if not self.steps or not isinstance(row.value, Mapping):
            return row
        value = cast(Mapping[str, Any], row.value)
        roots = {path[0] for path in self.steps.values()}
        named = {new: cell for new, path in self.steps.items() if (cell := _at(value, path)) is not _MISSING}
        kept = {name: cell for name, cell in value.items() if name not in roots}
        return replace(row, value=kept | self._left(value) | named)

    def _left(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what no path takes of the objects into which they lead, under names such as ``meta.label``."""
        taken = {path[:2] for path in self.steps.values()}
        roots = {path[0] for path in taken if len(path) > 1 and isinstance(row.get(str(path[0])), Mapping)}
        return {
            f"{root}.{key}": cell for root in roots for key, cell in row[str(root)].items() if (root, key) not in taken
        }


_MISSING = object()


def _steps(path: str) -> tuple[str | int, ...]:
    """Return the names and places of a path: ``a.b[0]`` is a, b, 0."""
    parts = _PATH.findall(path)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts) or (path,)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return _MISSING
            value = value[step]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            return _MISSING
    return value


def shown_columns(sample: Sample) -> str:
    """Return the columns with their types and an example of each, for a message of one line."""
    return _some([_shown(sample, name) for name in sorted(sample.columns)])


def shown_names(names: list[str]) -> str:
    """Return names of columns for a message of one line."""
    return _some([" ".join(name.split()) for name in names])


def _some(shown: list[str]) -> str:
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _shown(sample: Sample, name: str) -> str:
    values, named = sample.values(name), " ".join(name.split())
    if not values:
        return f"{named} (null)"
    text = " ".join(str(values[0])[:200].split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return f"{named} ({kind(values[0])}: {text[:24] + '…' if len(text) > 24 else text})"


def proposed(sample: Sample) -> dict[str, str | None]:
    """Return new name → column, for what the columns probably are; None where nothing looks like it."""
    tools = [
        name for name in sorted(sample.columns) if words_of(name) == ["functions"] and sample.mostly(name, _are_tools)
    ]
    return _sides(sample) | ({"tools": tools[0]} if len(tools) == 1 and "tools" not in sample.columns else {})


def _sides(sample: Sample) -> dict[str, str | None]:
    texts = [name for name in sorted(sample.columns) if sample.mostly(name, _is_content) and not _is_aside(name)]
    scored = [name for name in sorted(sample.columns) if sample.values(name) and sample.mostly(name, are_candidates)]
    if len(scored) == 1:
        texts = [name for name in texts if name not in scored]
        return {"prompt": _prompt(sample, texts), "candidates": scored[0]}
    whole = [name for name in texts if sample.mostly(name, _is_conversation)]
    if len(whole) == 1 and texts == whole and CONVERSATIONS.isdisjoint(sample.columns):
        return {"messages": whole[0]}
    lists = [name for name in sorted(sample.columns) if sample.mostly(name, lambda value: kind(value) == "list")]
    good, bad = _named(texts, _GOOD), _named(texts, _BAD)
    if not (good and bad) and (two := _two(texts)):
        return _of_two(sample, texts, two)
    if not (good or bad) and (judged := _of_label(sample, texts)):
        return judged
    sides: dict[str, str | None]
    if good or bad:
        sides = {"chosen": good, "rejected": bad}
    elif len(lists) > 1:
        scores = _named(
            [name for name in lists if _BADNESS.isdisjoint(words_of(name))],
            ("score", "scores", "rating", "ratings", "reward", "rewards", "rank", "ranks"),
        )
        others = [name for name in lists if name != scores]
        answers = others[0] if len(others) == 1 else _named(others, (*_ANSWERS, "generation", "candidate"))
        sides = {"responses": answers, "ranks" if scores and "rank" in scores.lower() else "scores": scores}
    else:
        sides = {"chosen": _only_answer(sample, texts)}
    rest = [name for name in texts if name not in sides.values()]
    prompt = _prompt(sample, rest)
    if good and not bad and rest == [prompt] and not any(sample.judges(name) for name in sample.columns - {good}):
        del sides["rejected"]  # nothing is left that could be it
    return _with_parts(sample, rest, {"prompt": prompt, **sides})


def _are_tools(value: object) -> bool:
    try:
        return read_tools(value) is not None
    except RowError:
        return False


def after(found: Mapping[str, str | None], sample: Sample) -> Sample:
    """Return the sample under the names of a mapping, of which the gaps are left out."""
    renaming = Renaming({new: (old,) for new, old in found.items() if old is not None and old != new})
    rows = [cast(Mapping[str, Any], renaming(RawRow("", row)).value) for row in sample.rows]
    roots = {path[0] for path in renaming.steps.values()}
    return Sample(frozenset(sample.columns - roots | renaming.steps.keys()), rows)


def unclear_label(sample: Sample) -> str:
    """Return what to write in the label of two responses where it may name either of them; else nothing."""
    texts = [name for name in sorted(sample.columns) if sample.mostly(name, _is_content) and not _is_aside(name)]
    if not (two := _two(texts)) or (label := _label_of_two(sample, two)) is None or _known_label(sample, two, label):
        return ""
    return (
        f"`{label}` is {shown_labels(sample.rows, label)}, which may mean either: write 1 where {two[0]} is better, "
        f"2 where {two[1]} is"
    )


def _of_two(sample: Sample, texts: list[str], two: tuple[str, str]) -> dict[str, str | None]:
    """Return the mapping of two responses and their label, which counts from 0 where their names do."""
    label = _label_of_two(sample, two)
    rest = [name for name in texts if name not in (*two, label)]
    names = ("response_0", "response_1", "better_response_id")
    if not (label and _from_0(sample, two, label)):
        names = ("response_1", "response_2", "better")
    found = (*two, label if label and _known_label(sample, two, label) else None)
    return {"prompt": _prompt(sample, rest), **dict(zip(names, found, strict=True))}


def _label_of_two(sample: Sample, two: tuple[str, str]) -> str | None:
    plain = [name for name in sorted(sample.columns) if name not in two and {*words_of(name)} <= _OF_LABELS]
    return _named(plain, _LABELS)


def _from_0(sample: Sample, two: tuple[str, str], label: str) -> bool:
    return two[0].endswith("0") and {str(value) for value in sample.values(label)} <= {"0", "1", "0.0", "1.0"}


def _known_label(sample: Sample, two: tuple[str, str], label: str) -> bool:
    """Return whether a label says which of two responses is meant: 1 alone may count from 1."""
    if _from_0(sample, two, label) or {str(value) for value in sample.values(label)} == {"1"}:
        return True
    rows = [{"better": value} for value in sample.values(label)]
    return not LABELLED.unknown_labels(rows)


def _of_label(sample: Sample, texts: list[str]) -> dict[str, str | None] | None:
    """Return the mapping of single answers with a label that says which are good; None if there is no such label."""
    judging = [name for name in sorted(sample.columns) if _is_verdict(sample, name)]
    if len(judging) != 1:
        return None
    words = {*words_of(judging[0])}
    label = judging[0] if words & _POSITIVE and words <= _POSITIVE | _BESIDE else None
    if any(not format.lacks(Sample(sample.columns | {"label"}, sample.rows)) for format in _JUDGED):
        return {"label": label}
    texts = [name for name in texts if name != judging[0]]
    answer = _only_answer(sample, texts, judging[0])
    rest = [name for name in texts if name != answer]
    return _with_parts(sample, rest, {"prompt": _prompt(sample, rest), "completion": answer, "label": label})


def _is_verdict(sample: Sample, name: str) -> bool:
    """Return whether a column says of each answer whether it is good, as true or false or the like."""
    values = sample.values(name)
    if not values or not (is_label(name) or sample.mostly(name, is_true_or_false)):
        return False
    return not KTO.unknown_labels([{"label": value} for value in values])


def _with_parts(sample: Sample, rest: list[str], found: dict[str, str | None]) -> dict[str, str | None]:
    """Add the system's text and what an instruction is about to a mapping of a prompt, so that neither is dropped."""
    prompt = found["prompt"]
    system = next((name for name in sorted(sample.columns) if "system" in words_of(name) and not is_about(name)), None)
    others = [name for name in rest if name != prompt and not _named([name], (*_ANSWERS, *_GOOD, *_BAD))]
    whole = bool(found.get("chosen") and found.get("rejected"))  # so that the others are no answers
    others = [name for name in others if whole or _named([name], _PROMPTS)]
    inputs = [name for name in others if name == "input" or sample.carries(name, any_text=False)]
    if {"chosen", "completion"}.isdisjoint(found) or not prompt or not (inputs or system):
        return found
    if inputs or "completion" in found:
        answer = next((found[name] for name in ("completion", "chosen") if name in found), None)
        sides = {"output": answer} if "rejected" not in found else {"chosen": answer, "rejected": found["rejected"]}
        label = {"label": found["label"]} if "label" in found else {}
        asked = {"instruction": prompt} | ({"input": inputs[0] if len(inputs) == 1 else None} if inputs else {})
        found = {**asked, **sides, **label}
    return {"system": system, **found} if system else found


def _only_answer(sample: Sample, texts: list[str], label: str | None = None) -> str | None:
    """Return the column of answers to imitate; None where there may be others, and this the worse one."""
    prompt = _named(texts, _PROMPTS)
    answer = _named([name for name in texts if name != prompt], _ANSWERS)
    others = [name for name in texts if name not in (prompt, answer) and sample.carries(name, any_text=True)]
    rated = _named([name for name in sample.columns if sample.mostly(name, lambda v: kind(v) == "number")], _RATINGS)
    one_of_two = answer and re.search(r"(?:[^A-Za-z]|(?<=[a-z])(?=[A-Z]))[0-9A-Za-z]$", answer)
    judged = any(sample.judges(name) for name in sample.columns - {prompt, answer, label})
    return None if rated or judged or one_of_two or len(others) > (prompt is None) else answer


def _prompt(sample: Sample, rest: list[str]) -> str | None:
    """Return the column of prompts among those that are no side; None where it would be a guess."""
    asked = [name for name in rest if not _named([name], (*_ANSWERS, *_GOOD, *_BAD)) and not _is_whole(sample, name)]
    found = _named(asked, _PROMPTS)
    if found and words_of(found) == ["input"] and any(sample.carries(one, any_text=True) for one in {*asked} - {found}):
        return None  # it may be what an instruction is about
    return found or max(asked, key=lambda name: sum(len(str(value)) for value in sample.values(name)), default=None)


def _is_whole(sample: Sample, name: str) -> bool:
    """Return whether a column is transcripts with their answers."""

    def has_answer(value: object) -> bool:
        start = answer_start(value) if isinstance(value, str) else None
        return start is not None and bool(str(value)[start:].strip())

    return sample.mostly(name, has_answer)


def written(found: Mapping[str, str | None]) -> str:
    """Return ``data.columns='{…}'`` as it is pasted; COLUMN where a column is to be named."""
    named = [f"{new}: {_quoted(old) if old else 'COLUMN'}" for new, old in found.items() if new != old]
    return "data.columns='{" + ", ".join(named) + "}'"


def _quoted(name: str) -> str:
    """Return a name as the command line and its shell read it."""
    if _PLAIN.fullmatch(name):
        return name
    quoted = '"' + name.replace('"', '\\"') + '"'
    return " ".join(quoted.replace("'", "'\\''").split())


def _is_aside(name: str) -> bool:
    """Return whether a column is about the row, or what a system says."""
    return is_about(name) or "system" in words_of(name)


def _is_content(value: object) -> bool:
    return kind(value) == "text" or (
        kind(value) == "messages"
        and all({"role", "content"} <= {*turn} or {"from", "value"} <= {*turn} for turn in cast(list[Any], value))
    )


def _is_conversation(value: object) -> bool:
    """Return whether a value is messages that end with an answer, and begin with what it answers."""
    turns = cast(list[Any], value) if kind(value) == "messages" else []
    return len(turns) > 1 and turns[-1].get("role") == "assistant"


def _named(names: list[str], words: tuple[str, ...]) -> str | None:
    """Return the first name that has one of the words in it, also in the plural, in the order of the words."""
    return next((name for word in words for name in names if {word, f"{word}s"} & {*words_of(name)}), None)


def _two(names: list[str]) -> tuple[str, str] | None:
    """Return two names that differ in a mark alone, such as answer_a and answer_b."""
    for first, second in _PAIRS_OF_MARKS:
        for name in names:
            stem = re.sub(rf"(?<![A-Za-z]){first}$|(?<=[a-z_-]){first}$", "", name)
            if stem != name and stem + second in names and not is_about(stem):
                return name, stem + second
    return None
