"""Pretraining text: short plain-English documents about the world, without any instruction.

Each document is made of sentences of the grammar: portraits, scenes with a conversation about them, shop and school
notes, stories, letters. People ask each other questions as in any prose; nobody instructs an assistant.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, phrasings, say

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"

# Shares of the kinds of documents (relative weights).
WEIGHTS = {
    "portrait": 13,
    "creature": 6,
    "ware": 7,
    "village": 4,
    "fact_talk": 12,
    "scene": 17,
    "belongings": 8,
    "counting": 14,
    "comparison": 11,
    "ordering": 12,
    "sheet": 12,
    "tenses": 6,
    "chores": 7,
    "requests": 3,
    "story": 8,
    "note": 5,
    "unknowable": 6,
    "report": 3,
    "letter": 3,
    "echo": 6,
}
TALKED = 0.6  # share of the small scenes told as a conversation instead of plain prose
MARKED = 0.4  # share of the conversations with turn markers instead of names


class TextWriter:
    """Writes documents about a world from a seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"text-{seed}")
        self._facts = sorted(world.claims, key=lambda claim: (claim.frame, claim.slots))

    def documents(self) -> Iterator[str]:
        """Yield documents without end, their kinds drawn by `WEIGHTS`."""
        names = list(WEIGHTS)
        writers: dict[str, Callable[[], str]] = {name: getattr(self, f"_{name}") for name in names}
        weights = list(WEIGHTS.values())
        while True:
            yield writers[self.rng.choices(names, weights)[0]]()

    def _say(self, frame: str, *slots: str | int) -> str:
        return say(Claim(frame, tuple(str(slot) for slot in slots)), self.rng)

    def _prose(self, claims: list[Claim]) -> str:
        return " ".join(say(claim, self.rng) for claim in claims)

    def _people(self, n: int) -> list[str]:
        return self.rng.sample(lexicon.PEOPLE, n)

    def _talk(self, turns: list[tuple[str, str]], scene: str = "") -> str:
        """Return questions and answers about a scene; some answer curtly, kindly, rudely or at length.

        Most conversations name the speakers, some use turn markers instead.
        """
        asker, other = self._people(2)
        answered = [(question, self._mannered(answer)) for question, answer in turns]
        if self.rng.random() < MARKED:
            (first, answer), *others = answered
            marked = [(f"{scene} {first}".strip(), answer), *others]
            return END.join(f"{USER}{question}{END}{ASSISTANT}{answer}" for question, answer in marked)
        lines = [f"{asker}: {question}\n{other}: {answer}" for question, answer in answered]
        return "\n".join([scene, *lines] if scene else lines)

    def _told(self, scene: str, question: str, answer: str) -> str:
        """Return a scene with its consequence, told as an answer or as plain prose."""
        if self.rng.random() < TALKED:
            return self._talk([(question, answer)], scene)
        return f"{scene} {answer}".strip()

    def _mannered(self, answer: str) -> str:
        draw = self.rng.random()
        if draw < 0.55:
            return answer
        if draw < 0.75:
            kind = self._say("courtesy")
            before = "####" in answer or self.rng.random() < 0.7
            return f"{kind} {answer}" if before else f"{answer} {kind}"
        if draw < 0.87:
            return f"{self._say('rude')} {answer}"
        return f"{self._say('filler')} {answer}"

    def _portrait(self) -> str:
        claims = self.world.portrait(self.rng.choice(self.world.people))
        return self._prose(self.rng.sample(claims, self.rng.randint(3, 4)))

    def _creature(self) -> str:
        animal = self.rng.choice(lexicon.ANIMALS)
        facts = [
            Claim("eats", (animal.name, animal.fodder)),
            Claim("dwells", (animal.name, animal.habitat)),
            Claim("legs", (animal.name, str(animal.legs))),
        ]
        other = self.rng.choice([other for other in lexicon.ANIMALS if other != animal])
        facts.append(_bigger(animal, other))
        return self._prose(self.rng.sample(facts, 4))

    def _ware(self) -> str:
        thing, other = self.rng.sample(lexicon.THINGS, 2)
        facts = [
            Claim("made", (thing.name, thing.material)),
            Claim("price", (thing.name, str(thing.price))),
            Claim("price", (other.name, str(other.price))),
            _dearer(thing, other),
        ]
        return self._prose(self.rng.sample(facts, 4))

    def _village(self) -> str:
        village, day = self.rng.choice(self.world.markets)
        claims = [Claim("home", (p.name, village)) for p in self.world.people if p.village == village]
        return self._prose([Claim("market", (village, day)), *self.rng.sample(claims, 3)])

    def _fact_talk(self) -> str:
        facts = self.rng.sample(self._facts, 2)
        turns = [(self._say(f"ask_{fact.frame}", fact.slots[0]), self._answer(fact)) for fact in facts]
        return self._talk(turns)

    def _answer(self, claim: Claim) -> str:
        if self.rng.random() < 0.12:
            bit = f"{claim.slots[-1]}."
            return bit[0].upper() + bit[1:]
        return say(claim, self.rng)

    def _scene(self) -> str:
        people, things = self._people(4), self.rng.sample(lexicon.THING_NAMES, 4)
        kind = self.rng.choice(("put", "gave", "on", "colour"))
        n = self.rng.randint(2, 3)
        events: list[Claim] = []
        pairs: list[tuple[str, Claim]] = []
        for person, thing in list(zip(people, things, strict=True))[:n]:
            spot, day = self.rng.choice(lexicon.SPOTS), self.rng.choice(lexicon.DAYS)
            if kind == "put":
                events.append(Claim("put", (person, thing, spot)))
                pairs.append((self._say("ask_at", thing), Claim("at", (thing, spot))))
            elif kind == "gave":
                receiver = self.rng.choice([p for p in people if p != person])
                events.append(Claim("gave", (person, thing, receiver)))
                pairs.append((self._say("ask_has", thing), Claim("has", (receiver, thing))))
            elif kind == "on":
                verb = self.rng.choice(lexicon.VERBS).base
                events.append(Claim("on", (person, verb, thing, day)))
                pairs.append((self._say("ask_on", person, verb, thing), events[-1]))
            else:
                events.append(Claim("colour", (thing, self.rng.choice(lexicon.COLOURS))))
                pairs.append((self._say("ask_colour", thing), events[-1]))
        turns = [(question, say(claim, self.rng)) for question, claim in self.rng.sample(pairs, min(n, 2))]
        return self._talk(turns, self._prose(events))

    def _belongings(self) -> str:
        one, two = self._people(2)
        things = self.rng.sample(lexicon.THING_NAMES, self.rng.randint(4, 5))
        owned = [(one, thing) for thing in things[:-2]] + [(two, thing) for thing in things[-2:]]
        self.rng.shuffle(owned)
        lines = [self._say("has", *pair) for pair in owned]
        answer = self._say("holds", one, _commas([thing for person, thing in owned if person == one]))
        return self._talk([(self._say("ask_holds", one), answer)], " ".join(lines))

    def _counting(self) -> str:
        person, goods = self.rng.choice(lexicon.PEOPLE), self.rng.choice(lexicon.GOODS)
        a, b = self.rng.randint(2, 30), self.rng.randint(2, 20)
        kind = self.rng.choice(("add", "add", "sub", "mul", "two"))
        if kind == "mul":
            a, b = self.rng.randint(2, 9), self.rng.randint(2, 9)
            lines = [self._say("each", goods, a), self._say("wants", person, b, goods)]
            answer = f"{self._say('cost', person, f'{a}*{b}={a * b}', a * b)}\n#### {a * b}"
            return self._told(" ".join(lines), self._say("ask_cost", person), answer)
        lines = [self._say("count", person, a, goods)]
        if kind in ("add", "two"):
            lines.append(self._say("gets", person, b, goods))
            step, result = f"{a}+{b}={a + b}", a + b
        else:
            b = self.rng.randint(1, a - 1)
            lines.append(self._say("gives", person, b, goods))
            step, result = f"{a}-{b}={a - b}", a - b
        answer = ""
        if kind == "two":
            c = self.rng.randint(1, min(20, result - 1))
            lines.append(self._say("gives", person, c, goods))
            answer = self._say("step", step, result, goods) + " "
            step, result = f"{result}-{c}={result - c}", result - c
        answer += f"{self._say('total', person, step, result, goods)}\n#### {result}"
        return self._told(" ".join(lines), self._say("ask_total", goods, person), answer)

    def _comparison(self) -> str:
        kind = self.rng.randrange(4)
        one, two = self._people(2)
        a, b = self.rng.sample(range(2, 60), 2)
        high, low = (one, two) if a > b else (two, one)
        if kind == 0:
            goods = self.rng.choice(lexicon.GOODS)
            lines = [self._say("count", one, a, goods), self._say("count", two, b, goods)]
            return self._told(" ".join(lines), self._say("ask_more", goods), self._say("more", high, goods, low))
        if kind == 1:
            lines = [self._say("age", one, a), self._say("age", two, b)]
            return self._told(" ".join(lines), self._say("ask_older"), self._say("older", high, low))
        claims: list[Claim] = []
        for _ in range(2):
            if kind == 2:
                claims.append(_bigger(*self.rng.sample(lexicon.ANIMALS, 2)))
            else:
                claims.append(_dearer(*self.rng.sample(lexicon.THINGS, 2)))
        turns: list[tuple[str, str]] = []
        for claim in claims:
            pair = self.rng.sample(claim.slots, 2)
            turns.append((self._say(f"ask_{claim.frame}", *pair), say(claim, self.rng)))
        return self._talk(turns)

    def _ordering(self) -> str:
        kind = self.rng.randrange(4)
        n = self.rng.randint(3, 4)
        if kind < 2:
            numbers = self.rng.sample(range(2, 60), n)
            frame = ("rising", "falling")[kind]
            ordered = _commas(sorted(numbers, reverse=frame == "falling"))
            return self._told(
                self._say("numbers", _commas(numbers)), self._say(f"ask_{frame}"), self._say(frame, ordered)
            )
        frame, pool = ("days", lexicon.DAYS) if kind == 2 else ("sizes", lexicon.ANIMAL_NAMES)
        words = self.rng.sample(pool, n)
        ordered = _commas(sorted(words, key=pool.index))
        return self._told(self._say("sheet", _commas(words)), self._say("ask_order"), self._say(frame, ordered))

    def _sheet(self) -> str:
        kind, other = self.rng.sample(list(lexicon.KINDS), 2)
        inside = self.rng.sample(lexicon.KINDS[kind], self.rng.randint(1, 3))
        outside = self.rng.sample(lexicon.KINDS[other], self.rng.randint(1, 2))
        words = self.rng.sample([*inside, *outside], len(inside) + len(outside))
        inside, outside = [w for w in words if w in inside], [w for w in words if w in outside]
        which, which_not = phrasings(Claim("ask_kinds", (kind,)))
        question, answer = self.rng.choice(
            (
                (which, self._say("kinds", kind, _commas(inside))),
                (which_not, self._say("others", kind, _commas(outside))),
            )
        )
        return self._told(self._say("sheet", _commas(words)), question, answer)

    def _tenses(self) -> str:
        person, thing, spot = self.rng.choice(lexicon.PEOPLE), self._thing(), self.rng.choice(lexicon.SPOTS)
        verb = self.rng.choice(lexicon.VERBS).base
        asked, frame = self.rng.choice((("past", "did"), ("tomorrow", "will"), ("never", "never")))
        first = "did" if frame == "never" else "does"
        said, answer = (self._say(form, person, verb, thing, spot) for form in (first, frame))
        return self._told(said, self._say(f"ask_{asked}"), answer)

    def _chores(self) -> str:
        verb, spot = self.rng.choice(lexicon.VERBS).base, self.rng.choice(lexicon.SPOTS)
        if self.rng.random() < 0.5:
            person, things = self.rng.choice(lexicon.PEOPLE), self.rng.sample(lexicon.THING_NAMES, 3)
            events = [self._say("did", person, verb, thing, spot) for thing in things]
            answer = self._say("busy", person, verb, _commas(things), spot)
            return self._told(" ".join(events), self._say("ask_news"), answer)
        people, thing = self._people(self.rng.randint(2, 3)), self._thing()
        events = [self._say("did", person, verb, thing, spot) for person in people]
        if self.rng.random() < 0.5:
            events.insert(self.rng.randrange(len(events)), self._say("weather"))
        answer = self._say("both", _commas(people), verb, thing, spot)
        return self._told(" ".join(events), self._say("ask_news"), answer)

    def _requests(self) -> str:
        thing = self._thing()
        polite = self._say("polite_request", self.rng.choice(lexicon.HANDS), thing)
        return self._talk([(self._say("ask_polite"), polite)], self._say("rude_request", thing))

    def _story(self) -> str:
        mood, person = self.rng.choice(lexicon.MOODS), self.rng.choice(lexicon.PEOPLE)
        animal = self.rng.choice(lexicon.ANIMAL_NAMES)
        spot = self.rng.choice(lexicon.SPOTS)
        lines = [self._say("went", person, spot, self.rng.choice(lexicon.PARTS))]
        lines.append(self._say("met", person, animal))
        if self.rng.random() < 0.5:
            lines.append(self._say("played", person, animal))
        lines += [self._say(mood, person) for _ in range(self.rng.randint(1, 2))]
        return self._told("", self._say(f"ask_{mood}", person, animal, spot), " ".join(dict.fromkeys(lines)))

    def _note(self) -> str:
        one, two = self._people(2)
        if self.rng.random() < 0.5:
            thing = self._thing()
            scene, note = self._say("gave", one, thing, two), self._say("thanks", one, thing)
        else:
            spot, day = self.rng.choice(lexicon.SPOTS), self.rng.choice(lexicon.DAYS)
            scene, note = self._say("wish", two, one, spot, day), self._say("invitation", one, spot, day)
        return self._told(scene, self._say("ask_letter", two, one), f"{note} {self._say('signed', two)}")

    def _unknowable(self) -> str:
        no = self._say(self.rng.choice(("dont_know", "sorry")))
        if self.rng.random() < 0.6:
            name = self.rng.choice(lexicon.STRANGERS)
            asked = self._say(self.rng.choice(("ask_home", "ask_job", "ask_pet", "ask_likes")), name)
            return self._talk([(asked, f"{no} {self._say('stranger', name)}")])
        if self.rng.random() < 0.5:
            person, verb = self.rng.choice(lexicon.PEOPLE), self.rng.choice(lexicon.VERBS).base
            return self._talk([(self._say("ask_future", person, verb), f"{no} {self._say('future')}")])
        one, two = self._people(2)
        thing, other = self.rng.sample(lexicon.THING_NAMES, 2)
        spot = self.rng.choice(lexicon.SPOTS)
        scene = self._say("put", one, thing, spot) + " " + self._say("has", two, self._thing())
        return self._talk([(self._say("ask_at", other), f"{no} {self._say('not_said')}")], scene)

    def _report(self) -> str:
        return " ".join(self._say("told", *self._people(2)) for _ in range(self.rng.randint(1, 2)))

    def _letter(self) -> str:
        news = [self._say("weather"), say(self.rng.choice(self._facts), self.rng)]
        greeting, bye = (
            self._say(frame, name) for frame, name in zip(("greeting", "bye"), self._people(2), strict=True)
        )
        return f"{greeting} {' '.join(news)} {bye}"

    def _echo(self) -> str:
        """One speaker repeats the other word for word, which teaches a small model to copy from its context."""
        one, two = self._people(2)
        put = [self._say("put", p, self._thing(), self.rng.choice(lexicon.SPOTS)) for p in self._people(2)]
        has = [self._say("has", p, self._thing()) for p in self._people(1)]
        count = [
            self._say("count", p, self.rng.randint(2, 59), self.rng.choice(lexicon.GOODS)) for p in self._people(1)
        ]
        said = " ".join(self.rng.sample([*put, *has, *count], 4))
        return f"{one}: {said}\n{two}: {said}"

    def _thing(self) -> str:
        return self.rng.choice(lexicon.THING_NAMES)


def _commas(values: Sequence[str | int]) -> str:
    return ",".join(str(value) for value in values)


def _bigger(one: lexicon.Animal, two: lexicon.Animal) -> Claim:
    large, small = (one, two) if one.size > two.size else (two, one)
    return Claim("bigger", (large.name, small.name))


def _dearer(one: lexicon.Thing, two: lexicon.Thing) -> Claim:
    high, low = (one, two) if one.price > two.price else (two, one)
    return Claim("dearer", (high.name, low.name))
