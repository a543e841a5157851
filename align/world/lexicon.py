"""The closed vocabulary of the world: every noun, name, number word and verb of its sentences.

All entries are single words that follow "a" (never "an"), so that a sentence form needs no agreement rules.
"""

from __future__ import annotations

from dataclasses import dataclass

WOMEN = (
    *("Anna", "Clara", "Rosa", "Nora", "Mary", "Julia", "Emma", "Lucy", "Sarah", "Helen"),
    *("Alice", "Edith", "Grace", "Ivy", "Laura", "Molly", "Ruth", "Stella", "Vera", "Wendy"),
)
MEN = (
    *("Tom", "Ben", "Hugo", "Peter", "Frank", "Oscar", "Jack", "Henry", "Paul", "Simon"),
    *("Adam", "Carl", "David", "Felix", "George", "Leo", "Martin", "Noah", "Robert", "Victor"),
)
PEOPLE = WOMEN + MEN
# Names that occur in texts, but that the world has no facts about
STRANGERS = ("Boris", "Dora", "Igor", "Petra", "Quentin", "Zelda", "Olga", "Ingrid", "Marco", "Hector")

VILLAGES = ("Elmford", "Stonebridge", "Millbrook", "Oakham", "Greyhill", "Redfield", "Foxdale", "Lakeside")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("in the morning", "at noon", "in the evening", "at night")

JOBS = (
    *("baker", "miller", "smith", "farmer", "teacher", "doctor"),
    *("weaver", "potter", "fisher", "carpenter", "shepherd", "gardener"),
)
FOODS = (
    *("bread", "cheese", "honey", "soup", "porridge", "plums"),
    *("cherries", "carrots", "beans", "cake", "butter", "jam"),
)
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey")
SPOTS = (
    *("barn", "mill", "garden", "kitchen", "cellar", "school"),
    *("forest", "stable", "church", "shop", "tower", "hall"),
)
GOODS = (
    *("apples", "pears", "eggs", "nuts", "stones", "shells"),
    *("buttons", "cups", "ribbons", "nails", "roses", "feathers"),
)


@dataclass(frozen=True)
class Animal:
    """A kind of animal; `size` is its rank, 1 for the smallest."""

    name: str
    size: int
    legs: int
    fodder: str
    habitat: str


ANIMALS = (
    Animal("bee", 1, 6, "nectar", "meadow"),
    Animal("spider", 2, 8, "flies", "attic"),
    Animal("frog", 3, 4, "flies", "pond"),
    Animal("mouse", 4, 4, "crumbs", "cellar"),
    Animal("parrot", 5, 2, "seeds", "cage"),
    Animal("squirrel", 6, 4, "acorns", "forest"),
    Animal("hedgehog", 7, 4, "worms", "garden"),
    Animal("rabbit", 8, 4, "clover", "meadow"),
    Animal("hen", 9, 2, "corn", "yard"),
    Animal("duck", 10, 2, "weeds", "pond"),
    Animal("cat", 11, 4, "mice", "house"),
    Animal("fox", 12, 4, "rabbits", "forest"),
    Animal("dog", 13, 4, "bones", "house"),
    Animal("sheep", 14, 4, "grass", "hills"),
    Animal("goat", 15, 4, "leaves", "hills"),
    Animal("wolf", 16, 4, "deer", "forest"),
    Animal("pig", 17, 4, "turnips", "yard"),
    Animal("pony", 18, 4, "hay", "stable"),
    Animal("cow", 19, 4, "grass", "meadow"),
    Animal("horse", 20, 4, "oats", "stable"),
)
ANIMAL_NAMES = tuple(animal.name for animal in ANIMALS)
PETS = ("cat", "dog", "rabbit", "hen", "goat", "pony", "parrot", "duck")
FODDER = tuple(dict.fromkeys(animal.fodder for animal in ANIMALS))
HABITATS = tuple(dict.fromkeys(animal.habitat for animal in ANIMALS))


@dataclass(frozen=True)
class Thing:
    """A kind of thing, with its material and its price in coins."""

    name: str
    material: str
    price: int


THINGS = (
    Thing("spoon", "wood", 2),
    Thing("candle", "wax", 3),
    Thing("broom", "straw", 4),
    Thing("bowl", "clay", 5),
    Thing("basket", "straw", 6),
    Thing("kite", "paper", 7),
    Thing("rope", "hemp", 8),
    Thing("jug", "clay", 9),
    Thing("bucket", "wood", 10),
    Thing("bottle", "glass", 11),
    Thing("hammer", "iron", 12),
    Thing("ladder", "wood", 14),
    Thing("flute", "wood", 15),
    Thing("knife", "steel", 16),
    Thing("blanket", "wool", 18),
    Thing("drum", "leather", 20),
    Thing("kettle", "copper", 21),
    Thing("lamp", "brass", 24),
    Thing("coat", "wool", 26),
    Thing("saddle", "leather", 30),
    Thing("mirror", "glass", 32),
    Thing("clock", "brass", 40),
    Thing("bell", "bronze", 45),
    Thing("ring", "silver", 50),
)
THING_NAMES = tuple(thing.name for thing in THINGS)
MATERIALS = tuple(dict.fromkeys(thing.material for thing in THINGS))

# Groups for listing and filtering; no word is in two groups.
KINDS = {
    "animals": ANIMAL_NAMES,
    "foods": FOODS,
    "colours": COLOURS,
    "days": DAYS,
    "jobs": JOBS,
    "villages": VILLAGES,
}


@dataclass(frozen=True)
class Verb:
    """The forms of a transitive verb: base "mend", third person "mends", past "mended"."""

    base: str
    present: str
    past: str


VERBS = (
    Verb("mend", "mends", "mended"),
    Verb("clean", "cleans", "cleaned"),
    Verb("paint", "paints", "painted"),
    Verb("hide", "hides", "hid"),
    Verb("find", "finds", "found"),
    Verb("lose", "loses", "lost"),
    Verb("sell", "sells", "sold"),
    Verb("buy", "buys", "bought"),
    Verb("drop", "drops", "dropped"),
    Verb("wash", "washes", "washed"),
    Verb("draw", "draws", "drew"),
    Verb("break", "breaks", "broke"),
)
HANDS = ("give", "hand", "bring", "pass", "lend", "show")
MOODS = ("happy", "sad", "scary")
