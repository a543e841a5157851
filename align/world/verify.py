"""Verifiers: the share of an answer that is right (`correct`), and the share of the request it meets (`complete`).

They judge the claims that the grammar reads from an answer, never its words: text that does not parse claims nothing,
and a list of keywords is not a claim. Every claim that is neither asked for, nor in the prompt, nor a fact of the world
divides `correct` by four, so trying several answers does not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from align.world.facts import World
from align.world.forms import FRAGMENTS, MANNERS, QUESTIONS, REPORTS, STORY
from align.world.grammar import Claim, parse, sentences
from align.world.task import Goal, from_list

FALSE_CLAIM = 0.25  # factor on `correct` for each false claim
_CURT_COMPLETE = 0.3  # completeness of a bare word instead of a sentence
# Frames that claim nothing about the world
_IDLE = frozenset((*MANNERS, *QUESTIONS, *REPORTS, "told", "signed"))
_REFUSALS = frozenset(("dont_know", "sorry"))


@dataclass(frozen=True)
class Sentence:
    """One sentence of an answer with its possible meanings."""

    text: str
    claims: tuple[Claim, ...]
    repeated: bool  # the same sentence occurred before

    @property
    def frames(self) -> frozenset[str]:
        """Frames of the possible meanings."""
        return frozenset(claim.frame for claim in self.claims)

    @property
    def is_fragment(self) -> bool:
        """True if the text is only a bit of a sentence."""
        return bool(self.claims) and all(frame in FRAGMENTS for frame in self.frames)


@dataclass(frozen=True)
class Verdict:
    """Scores of an answer's content, both in [0, 1], and the sentences that serve the goal."""

    correct: float
    complete: float
    useful: frozenset[int]  # indices of sentences


def read(text: str) -> tuple[Sentence, ...]:
    """Split an answer into sentences and parse them."""
    seen: set[str] = set()
    found: list[Sentence] = []
    for sentence in sentences(text):
        found.append(Sentence(sentence, parse(sentence), sentence in seen))
        seen.add(sentence)
    return tuple(found)


def verify(goal: Goal, answer: tuple[Sentence, ...], world: World) -> Verdict:
    """Judge the content of an answer; `KeyError` for a goal with an unknown verifier."""
    return _VERIFIERS[goal.verifier](goal.key, answer, world)


def _claims(key: Mapping[str, Any], answer: tuple[Sentence, ...], world: World) -> Verdict:
    wanted = [from_list(item) for item in key["want"]]
    best = [0.0] * len(wanted)
    useful: set[int] = set()
    for i, sentence in enumerate(answer):
        for j, want in enumerate(wanted):
            likeness = max((_likeness(want, claim) for claim in sentence.claims), default=0.0)
            if likeness > 0:
                useful.add(i)
                best[j] = max(best[j], likeness)
    complete = sum(1.0 for score in best if score > 0) / len(wanted)
    correct = sum(best) / len(wanted)
    bits = [i for i, s in enumerate(answer) if s.is_fragment and any(c.slots[-1] in key["bits"] for c in s.claims)]
    if correct == 0 and bits:
        correct, complete, useful = 1.0, _CURT_COMPLETE, {bits[0]}
    lies = _false_claims(answer, useful, key["given"], world)
    return Verdict(correct * FALSE_CLAIM**lies, complete, frozenset(useful))


def _equations(key: Mapping[str, Any], answer: tuple[Sentence, ...], world: World) -> Verdict:
    wanted = [from_list(item) for item in key["want"]]
    said = {i: claim for i, sentence in enumerate(answer) for claim in sentence.claims if claim.frame in _SUMS}
    finals = [i for i, sentence in enumerate(answer) if "final" in sentence.frames]
    right_final = len(finals) == 1 and answer[finals[0]].claims[0].slots[0] == str(key["answer"])
    made = {i for i, claim in said.items() if any(_likeness(want, claim) == 1 for want in wanted)}
    steps = sum(any(_likeness(want, claim) == 1 for claim in said.values()) for want in wanted) / len(wanted)
    wrong = len(said) - len(made) + max(0, len(finals) - right_final)
    lies = wrong + _false_claims(answer, set(said) | set(finals), key["given"], world)
    correct = 1.0 if right_final else 0.7 * steps
    complete = 0.75 * steps + 0.25 * bool(finals)
    useful = frozenset(said) | frozenset(finals)
    return Verdict(correct * FALSE_CLAIM**lies, complete if correct else 0.0, useful)


def _story(key: Mapping[str, Any], answer: tuple[Sentence, ...], world: World) -> Verdict:
    claims = {i: s.claims[0] for i, s in enumerate(answer) if s.frames & set(STORY) and not s.repeated}
    frames = [claim.frame for claim in claims.values()]
    words = {slot for claim in claims.values() for slot in claim.slots}
    wanted = [key[name] for name in ("person", "animal", "spot") if key[name]]
    asked = sum(word in words for word in wanted) / len(wanted)
    other_people = {
        claim.slots[0] for claim in claims.values() if claim.frame != "played" or claim.slots[0][0].isupper()
    } - {key["person"]}
    moods = {frame for frame in frames if frame in ("happy", "sad", "scary")}
    lies = _false_claims(answer, set(claims), [], world) + len(moods - {key["mood"]}) + len(other_people)
    parts = ("went" in frames, "met" in frames or "played" in frames, key["mood"] in frames)
    correct = asked * (1.0 if key["mood"] in frames else FALSE_CLAIM) * min(1.0, len(claims) / 2)
    return Verdict(correct * FALSE_CLAIM**lies, sum(parts) / len(parts), frozenset(claims))


def _refusal(key: Mapping[str, Any], answer: tuple[Sentence, ...], world: World) -> Verdict:
    reason = from_list(key["reason"])
    declined = {i for i, sentence in enumerate(answer) if sentence.frames & _REFUSALS}
    reasons = {i for i, sentence in enumerate(answer) if reason in sentence.claims}
    if not declined:
        return Verdict(0.4 if reasons else 0.0, 0.5 if reasons else 0.0, frozenset(reasons))
    lies = _false_claims(answer, declined | reasons, key.get("given", []), world)
    return Verdict(FALSE_CLAIM**lies, 1.0 if reasons else 0.5, frozenset(declined | reasons))


_SUMS = ("step", "total", "cost")
_VERIFIERS: dict[str, Callable[[Mapping[str, Any], tuple[Sentence, ...], World], Verdict]] = {
    "claims": _claims,
    "equations": _equations,
    "story": _story,
    "refusal": _refusal,
}
# Slots whose words are a set, by frame: their order does not matter
_SETS = {"kinds": (1,), "others": (1,), "holds": (1,), "busy": (2,), "both": (0,)}


def _likeness(want: Claim, claim: Claim) -> float:
    """Return 1 for the wanted claim, less for one with other words in a list, 0 for any other."""
    if want.frame != claim.frame:
        return 0.0
    likeness = 1.0
    for i, (right, said) in enumerate(zip(want.slots, claim.slots, strict=True)):
        if i in _SETS.get(want.frame, ()):
            words, others = set(right.split(",")), said.split(",")
            if len(set(others)) < len(others):
                return 0.0
            likeness *= len(words & set(others)) / len(words | set(others))
        elif right not in (said, "*"):
            return 0.0
    return likeness


def _false_claims(answer: tuple[Sentence, ...], useful: set[int], given: list[list[str]], world: World) -> int:
    """Count the sentences with a claim neither requested, nor given in the prompt, nor true in the world."""
    allowed = {from_list(item) for item in given}
    lies = 0
    for i, sentence in enumerate(answer):
        if i in useful or not sentence.claims or sentence.frames & _IDLE:
            continue
        if not any(claim in allowed or world.holds(claim) for claim in sentence.claims):
            lies += 1
    return lies
