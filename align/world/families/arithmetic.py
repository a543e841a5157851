"""Arithmetic in steps: `<<a+b=c>>` for each computed number, and `#### c` at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, phrasings, say
from align.world.task import Draw, Family, Goal, from_list, to_list

_Step = tuple[int, str, int, int]
"""Left, sign, right, result."""


@dataclass(frozen=True)
class _Sum:
    """A calculation: its text, its steps, and the frame of the last sentence."""

    given: list[Claim]
    person: str
    goods: str
    steps: list[_Step]
    last: str = "total"  # or "cost"


def solutions(goal: Goal) -> tuple[tuple[str, ...], ...]:
    """Return good answers, grouped by the order in which the numbers are combined, each in all wordings.

    Orders differ if their equations do: 3+4 and 4+3 are two. Nothing is subtracted from a smaller or an equal number.
    The references of a task are the order of its text.
    """
    given = [from_list(item) for item in goal.key["given"]]
    if given[0].frame == "each":
        goods, price = given[0].slots
        person, number, _ = given[1].slots
        a, b = int(price), int(number)
        orders: list[tuple[_Step, ...]] = [((a, "*", b, a * b),), ((b, "*", a, a * b),)]
        problem = _Sum(given, person, goods, [], "cost")
    else:
        person, _, goods = given[0].slots
        orders = list(_orders([int(claim.slots[1]) * (-1 if claim.frame == "gives" else 1) for claim in given]))
        problem = _Sum(given, person, goods, [])
    found = (replace(problem, steps=list(steps)) for steps in sorted(set(orders)))
    return tuple(_texts(_solution(one), goal.key["answer"]) for one in found)


def _orders(numbers: Sequence[int]) -> Iterator[tuple[_Step, ...]]:
    """Yield the orders in which two or more numbers can be added; a negative one is subtracted."""
    if len(numbers) == 1:
        yield ()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j and a > 0 and a + b > 0:
                rest = [number for place, number in enumerate(numbers) if place not in (i, j)]
                for later in _orders([*rest, a + b]):
                    yield ((a, "+" if b > 0 else "-", abs(b), a + b), *later)


def _person_and_goods(rng: random.Random) -> tuple[str, str]:
    return rng.choice(lexicon.PEOPLE), rng.choice(lexicon.GOODS)


def _add(rng: random.Random) -> _Sum:
    person, goods = _person_and_goods(rng)
    a, b = rng.randint(2, 30), rng.randint(2, 20)
    given = [Claim("count", (person, str(a), goods)), Claim("gets", (person, str(b), goods))]
    return _Sum(given, person, goods, [(a, "+", b, a + b)])


def _subtract(rng: random.Random) -> _Sum:
    person, goods = _person_and_goods(rng)
    a = rng.randint(3, 30)
    b = rng.randint(1, a - 1)
    given = [Claim("count", (person, str(a), goods)), Claim("gives", (person, str(b), goods))]
    return _Sum(given, person, goods, [(a, "-", b, a - b)])


def _cost(rng: random.Random) -> _Sum:
    person, goods = _person_and_goods(rng)
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    given = [Claim("each", (goods, str(a))), Claim("wants", (person, str(b), goods))]
    return _Sum(given, person, goods, [(a, "*", b, a * b)], "cost")


def _two_steps(rng: random.Random) -> _Sum:
    start = _add(rng)
    total = start.steps[0][3]
    c = rng.randint(1, min(20, total - 1))
    given = [*start.given, Claim("gives", (start.person, str(c), start.goods))]
    return _Sum(given, start.person, start.goods, [*start.steps, (total, "-", c, total - c)])


def _three_numbers(rng: random.Random) -> _Sum:
    start = _add(rng)
    total, c = start.steps[0][3], rng.randint(2, 20)
    given = [*start.given, Claim("gets", (start.person, str(c), start.goods))]
    return _Sum(given, start.person, start.goods, [*start.steps, (total, "+", c, total + c)])


def _solution(problem: _Sum) -> list[Claim]:
    claims: list[Claim] = []
    for i, (a, sign, b, c) in enumerate(problem.steps):
        equation, result = f"{a}{sign}{b}={c}", str(c)
        if i < len(problem.steps) - 1:
            claims.append(Claim("step", (equation, result, problem.goods)))
        elif problem.last == "cost":
            claims.append(Claim("cost", (problem.person, equation, result)))
        else:
            claims.append(Claim("total", (problem.person, equation, result, problem.goods)))
    return claims


def _texts(claims: Sequence[Claim], answer: int) -> tuple[str, ...]:
    """Return the claims in all wordings, each followed by the answer."""
    *first, last = [phrasings(claim) for claim in claims]
    starts = first[0] if first else ("",)
    return tuple(f"{start} {end}\n#### {answer}".strip() for start in starts for end in last)


def _draw(create: Callable[[random.Random], _Sum]) -> Callable[[random.Random, World], Draw]:
    def draw(rng: random.Random, _world: World) -> Draw:
        problem = create(rng)
        claims = _solution(problem)
        answer = problem.steps[-1][3]
        slip = max(0, answer + rng.choice((-10, -2, -1, 1, 2, 10)))
        a, sign, b, _ = problem.steps[-1]
        wrong = _solution(replace(problem, steps=[*problem.steps[:-1], (a, sign, b, slip)]))
        careless = " ".join(say(claim, rng) for claim in wrong) + f"\n#### {slip}"
        key = {
            "answer": answer,
            "steps": [f"{a}{sign}{b}={c}" for a, sign, b, c in problem.steps],
            "want": [to_list(claim) for claim in claims],
            "given": [to_list(claim) for claim in problem.given],
        }
        words = {
            "text": " ".join(say(claim, rng) for claim in problem.given),
            "person": problem.person,
            "goods": problem.goods,
        }
        return Draw(words, key, _texts(claims, answer), f"#### {answer}", careless)

    return draw


_TOTAL = (
    "{text} How many {goods} does {person} have now?",
    "{text} Work out how many {goods} {person} has in the end.",
    "How many {goods} does {person} have in the end? The text: {text}",
    "{text} Explain each step. How many {goods} does {person} have?",
    "Work it out and give the final number. {text}",
    "{text} Name the number of {goods} that {person} has now.",
)
_PRICE = (
    "{text} How many coins does {person} pay?",
    "{text} What does {person} pay all in all?",
    "How many coins does {person} pay? The text: {text}",
    "{text} Explain each step. What is the price for {person}?",
    "Work out the price and give the final number. {text}",
    "{text} Name the number of coins that {person} pays.",
)


def _family(
    name: str,
    templates: tuple[str, ...],
    create: Callable[[random.Random], _Sum],
    *,
    held_out: bool = False,
) -> Family:
    return Family(f"sum_{name}", "arithmetic", templates, _draw(create), "equations", held_out)


FAMILIES = (
    _family("add", _TOTAL, _add),
    _family("subtract", _TOTAL, _subtract),
    _family("cost", _PRICE, _cost),
    _family("two_steps", _TOTAL, _two_steps),
    _family("three_numbers", _TOTAL, _three_numbers, held_out=True),
)
