"""All task families of the world by name, in ten clusters."""

from __future__ import annotations

from align.world.families import (
    arithmetic,
    comparing,
    listing,
    ordering,
    reading,
    recall,
    rewriting,
    summarising,
    unknowable,
    writing,
)
from align.world.task import Family

_MODULES = (
    *(recall, reading, listing, comparing, arithmetic),
    *(ordering, rewriting, writing, unknowable, summarising),
)
FAMILIES: dict[str, Family] = {family.name: family for module in _MODULES for family in module.FAMILIES}
