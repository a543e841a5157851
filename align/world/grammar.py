"""The grammar of the world: claims, their sentences in both directions, and splitting a text into sentences.

A `Claim` is a frame with slot values, such as `Claim("home", ("Anna", "Elmford"))`. `say` turns it into one of its
sentences, `parse` finds every claim a sentence can mean. The same forms (`align/world/forms.py`) serve both, so a text
is grammatical exactly if `say` could have written it. Parsing limits the length of its input and evaluates nothing.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from align.world import lexicon
from align.world.forms import FORMS

MAX_SENTENCE = 400  # characters; a longer sentence is not parsed


@dataclass(frozen=True)
class Claim:
    """A meaning: the name of a frame, and its slot values in the order of the frame's first form.

    Values are single words or numbers; a list is one value joined by commas ("fox,owl").
    """

    frame: str
    slots: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Form:
    text: str
    slots: tuple[str, ...]
    pattern: re.Pattern[str]


def phrasings(claim: Claim) -> tuple[str, ...]:
    """Return every sentence that expresses a claim; `KeyError` for an unknown frame."""
    signature = _SIGNATURES[claim.frame]
    values = dict(zip(signature, claim.slots, strict=True))
    return tuple(_fill(form, values) for form in _COMPILED[claim.frame])


def say(claim: Claim, rng: random.Random) -> str:
    """Return a random sentence that expresses a claim."""
    return rng.choice(phrasings(claim))


def join(words: list[str] | tuple[str, ...], article: str = "") -> str:
    """Return "x, y and z", each word after `article`."""
    items = [f"{article} {word}".strip() for word in words]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


@lru_cache(maxsize=65536)
def parse(sentence: str) -> tuple[Claim, ...]:
    """Return every claim that a sentence can mean; empty if it is not a sentence of the world."""
    if not sentence or len(sentence) > MAX_SENTENCE:
        return ()
    head = sentence.split(" ", 1)[0]
    found: list[Claim] = []
    for frame, form in (*_BY_HEAD.get(head, ()), *_SLOT_FIRST):
        match = form.pattern.fullmatch(sentence)
        if match is None:
            continue
        values = [
            _normal(_kind(slot), value, first=match.start(i + 1) == 0)
            for i, (slot, value) in enumerate(zip(form.slots, match.groups(), strict=True))
        ]
        if None not in values:
            table = dict(zip(form.slots, values, strict=True))
            found.append(Claim(frame, tuple(str(table[slot]) for slot in _SIGNATURES[frame])))
    return tuple(dict.fromkeys(found))


def sentences(text: str) -> list[str]:
    """Split a text into sentences; a line may begin with a speaker ("Anna: ") and "#### 12" is one sentence."""
    found: list[str] = []
    for line in text.split("\n"):
        speaker = _SPEAKER.match(line)
        rest = line[speaker.end() :] if speaker and speaker.group(1) in _NAMES else line
        found += [part for part in _BOUNDARY.split(rest.strip()) if part]
    return found


_NAMES = frozenset((*lexicon.PEOPLE, *lexicon.STRANGERS))
_SPEAKER = re.compile(r"([A-Z][a-z]{1,12}): ")
_BOUNDARY = re.compile(r"(?<=[.!?]) +")
_LIST_WORDS = frozenset(word for group in lexicon.KINDS.values() for word in group)
_VERB_FORMS = {
    "base": {verb.base: verb.base for verb in lexicon.VERBS},
    "present": {verb.present: verb.base for verb in lexicon.VERBS},
    "past": {verb.past: verb.base for verb in lexicon.VERBS},
}
_VERBS = {verb.base: verb for verb in lexicon.VERBS}
_VOCABULARY: dict[str, frozenset[str]] = {
    "person": frozenset(lexicon.PEOPLE),
    "stranger": frozenset(lexicon.STRANGERS),
    "name": _NAMES,
    "village": frozenset(lexicon.VILLAGES),
    "day": frozenset(lexicon.DAYS),
    "job": frozenset(lexicon.JOBS),
    "food": frozenset(lexicon.FOODS),
    "colour": frozenset(lexicon.COLOURS),
    "spot": frozenset(lexicon.SPOTS),
    "goods": frozenset(lexicon.GOODS),
    "animal": frozenset(lexicon.ANIMAL_NAMES),
    "pet": frozenset(lexicon.PETS),
    "fodder": frozenset(lexicon.FODDER),
    "habitat": frozenset(lexicon.HABITATS),
    "thing": frozenset(lexicon.THING_NAMES),
    "material": frozenset(lexicon.MATERIALS),
    "kind": frozenset(lexicon.KINDS),
    "hand": frozenset(lexicon.HANDS),
}
_LISTS = {"words": _LIST_WORDS, "things": _VOCABULARY["thing"], "people": _VOCABULARY["person"]}
_PATTERNS = {
    "num": r"(\d{1,4})",
    "eq": r"<<(\d{1,4}[-+*]\d{1,4}=\d{1,4})>>",
    "part": "((?i:" + "|".join(lexicon.PARTS) + "))",
    "words": r"([A-Za-z]+(?:, [a-zA-Z]+)*(?: and [a-zA-Z]+)?)",
    "people": r"([A-Z][a-z]+(?:, [A-Z][a-z]+)* and [A-Z][a-z]+)",
    "nums": r"(\d{1,4}(?:, \d{1,4})*(?: and \d{1,4})?)",
    "things": r"([Aa] [a-z]+(?:, a [a-z]+)*(?: and a [a-z]+)?)",
}
_ARTICLES = {"things": "a"}


def _kind(slot: str) -> str:
    return slot.rstrip("0123456789")


def _normal(kind: str, value: str, *, first: bool) -> str | None:
    """Return the canonical value of a slot, or None if the word does not fit; a first word may be capitalised."""
    if kind in _VERB_FORMS:
        return _VERB_FORMS[kind].get(value)
    if kind in _LISTS:
        parts = re.split(r", | and ", value)
        words = [part[2:] if kind == "things" else part for part in parts]
        if first and words[0] not in _LISTS[kind]:
            words[0] = words[0].lower()
        return ",".join(words) if all(word in _LISTS[kind] for word in words) else None
    if kind == "nums":
        return ",".join(re.split(r", | and ", value))
    if kind in ("num", "eq", "part"):
        return value.lower()
    vocabulary = _VOCABULARY[kind]
    if first and value not in vocabulary:
        value = value.lower()
    return value if value in vocabulary else None


def _surface(kind: str, value: str) -> str:
    if kind in ("words", "nums", "things", "people"):
        return join(value.split(","), _ARTICLES.get(kind, ""))
    if kind == "present":
        return _VERBS[value].present
    if kind == "past":
        return _VERBS[value].past
    return f"<<{value}>>" if kind == "eq" else value


def _fill(form: _Form, values: dict[str, str]) -> str:
    text = form.text
    for slot in form.slots:
        text = text.replace("{" + slot + "}", _surface(_kind(slot), values[slot]))
    return text[0].upper() + text[1:]


def _compile(text: str) -> _Form:
    pieces = re.split(r"\{(\w+)\}", text)
    pattern = "".join(
        re.escape(piece) if i % 2 == 0 else _PATTERNS.get(_kind(piece), r"([A-Za-z]+)")
        for i, piece in enumerate(pieces)
    )
    return _Form(text, tuple(pieces[1::2]), re.compile(pattern))


def _index() -> tuple[dict[str, list[tuple[str, _Form]]], list[tuple[str, _Form]]]:
    by_head: dict[str, list[tuple[str, _Form]]] = {}
    slot_first: list[tuple[str, _Form]] = []
    for frame, forms in _COMPILED.items():
        for form in forms:
            head = form.text.split(" ", 1)[0]
            if "{" in head:
                slot_first.append((frame, form))
            else:
                by_head.setdefault(head, []).append((frame, form))
    return by_head, slot_first


_COMPILED = {frame: tuple(_compile(text) for text in texts) for frame, texts in FORMS.items()}
_SIGNATURES = {frame: forms[0].slots for frame, forms in _COMPILED.items()}
_BY_HEAD, _SLOT_FIRST = _index()
