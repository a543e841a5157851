"""The fixed facts of the world: where people live, which pets they keep, when the markets are.

A `World` is drawn from a seed. The shipped models know the world of seed 0, which `World.default()` returns.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

from align.world.grammar import Claim
from align.world.lexicon import ANIMALS, DAYS, FOODS, JOBS, PEOPLE, PETS, THINGS, VILLAGES

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """One inhabitant with the facts about them."""

    name: str
    village: str
    job: str
    pet: str
    food: str


@dataclass(frozen=True)
class World:
    """All facts of one world: inhabitants and market days (animals and things are the same in every world)."""

    people: tuple[Person, ...]
    markets: tuple[tuple[str, str], ...]

    @classmethod
    def create(cls, seed: int) -> World:
        """Draw a world; equal seeds give equal worlds. Attributes are spread evenly over the people."""
        rng = random.Random(f"world-{seed}")
        columns = [_spread(rng, values, len(PEOPLE)) for values in (VILLAGES, JOBS, PETS, FOODS)]
        people = tuple(Person(*row) for row in zip(PEOPLE, *columns, strict=True))
        return cls(people, tuple(zip(VILLAGES, _spread(rng, DAYS, len(VILLAGES)), strict=True)))

    @classmethod
    def default(cls) -> World:
        """Return the world that the shipped models and data are about."""
        return _default()

    def portrait(self, person: Person) -> list[Claim]:
        """Return all claims about one person."""
        return [
            Claim("home", (person.name, person.village)),
            Claim("job", (person.name, person.job)),
            Claim("pet", (person.name, person.pet)),
            Claim("likes", (person.name, person.food)),
        ]

    @cached_property
    def claims(self) -> frozenset[Claim]:
        """Every single fact; comparisons follow from them, see `holds`."""
        found = [claim for person in self.people for claim in self.portrait(person)]
        found += [Claim("market", market) for market in self.markets]
        for animal in ANIMALS:
            found.append(Claim("eats", (animal.name, animal.fodder)))
            found.append(Claim("dwells", (animal.name, animal.habitat)))
            found.append(Claim("legs", (animal.name, str(animal.legs))))
        for thing in THINGS:
            found.append(Claim("made", (thing.name, thing.material)))
            found.append(Claim("price", (thing.name, str(thing.price))))
        return frozenset(found)

    def holds(self, claim: Claim) -> bool:
        """Return whether a claim follows from the facts of the world; the text of a task does not count."""
        if claim.frame == "bigger":
            return _SIZE[claim.slots[0]] > _SIZE[claim.slots[1]]
        if claim.frame == "dearer":
            return _PRICE[claim.slots[0]] > _PRICE[claim.slots[1]]
        return claim in self.claims


_SIZE = {animal.name: animal.size for animal in ANIMALS}
_PRICE = {thing.name: thing.price for thing in THINGS}


@cache
def _default() -> World:
    return World.create(0)


def _spread(rng: random.Random, values: tuple[T, ...], n: int) -> list[T]:
    """Return `n` values in random order, each used as often as any other (give or take one)."""
    pool = [values[i % len(values)] for i in range(n)]
    rng.shuffle(pool)
    return pool
