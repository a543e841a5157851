"""Mixtures of several sources at rates that follow their sizes, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from align.errors import UserError

__all__ = ["Rates", "mixing_rates", "mixture"]

Rates = Literal["proportional", "temperature", "equal"]


def mixing_rates(
    sizes: Mapping[str, int], rates: Rates = "proportional", *, cap: int | None = None, temperature: float = 1.0
) -> dict[str, float]:
    """Return the share of each source in the mixture.

    ``r_m = min(e_m, K) / Σ_n min(e_n, K)``, examples-proportional with the artificial limit K on a source's size, and
    ``r_m^(1/T)``, renormalised, with a temperature (Raffel et al. 2020, section 3.5.2); or the same for all.

    Args:
        sizes: Examples of each source, ``e_m``.
        rates: ``proportional``, ``temperature`` or ``equal``.
        cap: K; None: no limit.
        temperature: T ≥ 1, of ``temperature`` alone; large values come near to equal rates.

    Raises:
        UserError: A source is empty, or a setting is out of its range or without effect.
    """
    if empty := [name for name, size in sizes.items() if size < 1]:
        raise UserError(f"mix: {empty[0]} has no rows; leave it out.")
    if cap is not None and (cap < 1 or rates == "equal"):
        raise UserError(f"mix: cap={cap} must be at least 1, and has no effect on equal rates; leave it out.")
    if temperature < 1 or (temperature != 1 and rates != "temperature"):
        raise UserError(
            f"mix: temperature={temperature:g} must be at least 1, and has an effect on temperature rates alone."
        )
    if rates == "equal":
        return dict.fromkeys(sizes, 1 / len(sizes))
    powers = {name: min(size, cap or size) ** (1 / temperature) for name, size in sizes.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def mixture(sizes: Mapping[str, int], rates: Mapping[str, float], n: int, *, seed: int) -> Iterator[tuple[str, int]]:
    """Yield the n (source, row) of a mixture.

    Every beginning of it has the rates as nearly as whole rows allow: next comes the source that lags most behind its
    share. The rows of a source come in a shuffled order, and again in another one when all have come.

    Args:
        sizes: Rows of each source.
        rates: Share of each.
        n: Rows of the mixture.
        seed: Of the orders.
    """
    taken = dict.fromkeys(sizes, 0)
    orders: dict[str, NDArray[np.int64]] = {}
    for count in range(1, n + 1):
        name = max(sizes, key=lambda name: rates[name] * count - taken[name])
        turn, place = divmod(taken[name], sizes[name])
        if place == 0:
            number = list(sizes).index(name)
            orders[name] = np.random.default_rng([seed, number, turn]).permutation(sizes[name])
        taken[name] += 1
        yield name, int(orders[name][place])
