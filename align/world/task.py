"""Tasks: the prompt, the requirements of a good answer (`Goal`), and some answers of known quality.

The true reward needs nothing but the `Goal`, which is JSON in the `answer` column of the pairwise format.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from align.world.facts import World
from align.world.grammar import Claim, phrasings, say

Verifier = Literal["claims", "equations", "story", "refusal"]
Split = Literal["train", "seen", "template", "family"]
HELD_OUT_SHARE = 0.2  # of the goals of every seen family
_ALLOWANCE = 6  # words an answer may have beyond its longest reference, for courtesy


@dataclass(frozen=True)
class Goal:
    """The requirements that an answer is checked against.

    `key` depends on the verifier: "claims" has `want` (claims to be made), `given` (claims of the prompt, true but not
    asked for) and `bits` (curt answers); "equations" has `answer`, `steps`, `want` and `given`; "story" has `mood`,
    `person`, `animal` and `spot` (one of the two is null); "refusal" has `reason`. `words` is the longest length in
    words without a penalty.
    """

    family: str
    verifier: Verifier
    key: Mapping[str, Any]
    words: int

    def to_json(self) -> str:
        """Return the text for the `answer` column."""
        fields = {"family": self.family, "verifier": self.verifier, "key": dict(self.key), "words": self.words}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Goal:
        """Read the `answer` column of a task; `ValueError` if it has something else."""
        try:
            fields = json.loads(text)
            return cls(fields["family"], fields["verifier"], fields["key"], int(fields["words"]))
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"not the answer column of a task of the world: {str(text)[:80]!r}") from error

    @property
    def is_held_out(self) -> bool:
        """True for goals never used in training: a fixed fifth of all goals, chosen by a hash of their content."""
        content = json.dumps([self.family, dict(self.key)], sort_keys=True)
        return hashlib.sha256(content.encode()).digest()[0] < 256 * HELD_OUT_SHARE


@dataclass(frozen=True)
class Task:
    """One instruction with its goal.

    `references` are good answers without courtesy, `curt` and `careless` are bad ones.
    """

    prompt: str
    goal: Goal
    template: int
    references: tuple[str, ...]
    curt: str
    careless: str


@dataclass(frozen=True)
class Draw:
    """One random instance of a family: the words for its template, and the goal's key with answers."""

    words: Mapping[str, str]
    key: Mapping[str, Any]
    references: tuple[str, ...]
    curt: str
    careless: str


@dataclass(frozen=True)
class Family:
    """A kind of task. Its last template is held out; `held_out` families never occur in training."""

    name: str
    cluster: str
    templates: tuple[str, ...]
    draw: Callable[[random.Random, World], Draw]
    verifier: Verifier = "claims"
    held_out: bool = False


OPENERS = ("Hello. ", "Good morning. ", "Good evening. ", "A question. ", "Please read this. ")
_OPENER_SHARE = 0.2


class TaskSampler:
    """Draws tasks of a split; equal seeds draw equal tasks.

    "train" uses seen families, seen templates and training goals; "seen" the same with held-out goals; "template" the
    held-out template of each seen family with held-out goals; "family" the held-out families.
    """

    def __init__(self, families: Mapping[str, Family], world: World, split: Split, seed: int) -> None:
        self._world, self._split = world, split
        self._rng = random.Random(f"tasks-{split}-{seed}")
        self._clusters: dict[str, list[Family]] = {}
        for family in families.values():
            if family.held_out == (split == "family"):
                self._clusters.setdefault(family.cluster, []).append(family)

    def draw(self) -> Task:
        """Return a task; clusters are equally likely, and so are the families of a cluster."""
        cluster = self._rng.choice(list(self._clusters))
        return self.draw_from(self._rng.choice(self._clusters[cluster]))

    def draw_from(self, family: Family) -> Task:
        """Return a task of one family."""
        last = len(family.templates) - 1
        while True:
            drawn = family.draw(self._rng, self._world)
            words = max(len(reference.split()) for reference in drawn.references) + _ALLOWANCE
            goal = Goal(family.name, family.verifier, drawn.key, words)
            if self._split == "family" or goal.is_held_out == (self._split != "train"):
                break
        template = last if self._split == "template" else self._rng.randrange(last)
        prompt = family.templates[template].format(**drawn.words)
        if self._rng.random() < _OPENER_SHARE:
            prompt = self._rng.choice(OPENERS) + prompt
        return Task(prompt, goal, template, drawn.references, drawn.curt, drawn.careless)


def claims_draw(
    words: Mapping[str, str],
    want: list[Claim],
    wrong: list[Claim],
    rng: random.Random,
    *,
    bits: list[str],
    curt: str,
    given: list[Claim] | None = None,
) -> Draw:
    """Return a draw for the claims verifier: `want` in all wordings, `wrong` for a careless answer."""
    key = {
        "want": [to_list(claim) for claim in want],
        "given": [to_list(claim) for claim in given or []],
        "bits": bits,
    }
    references = tuple(" ".join(parts) for parts in itertools.product(*map(phrasings, want)))
    careless = " ".join(say(claim, rng) for claim in wrong)
    return Draw(words, key, references, curt, careless)


def to_list(claim: Claim) -> list[str]:
    """Return a claim as JSON: the frame, then the slots."""
    return [claim.frame, *claim.slots]


def from_list(items: list[str]) -> Claim:
    """Return the claim of `to_list`."""
    return Claim(items[0], tuple(items[1:]))
