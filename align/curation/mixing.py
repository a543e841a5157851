"""Mixtures of several sources at rates that follow their sizes, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from align.errors import UserError

if TYPE_CHECKING:
    from align.data import Preferences

__all__ = ["Rates", "mixing_rates", "mixture", "write_mixture"]

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


def write_mixture(
    sources: Mapping[str, Preferences], rates: Mapping[str, float], n: int, out: Path, *, seed: int
) -> None:
    """Write a mixture as JSON lines, with the name of its source in each row; goes on where it was stopped.

    Args:
        sources: Data by name.
        rates: Share of each.
        n: Rows of the mixture.
        out: The file.
        seed: Of the orders.
    """
    from align.data.writing import CHUNK_ROWS, columns_with_values, write_jsonl

    def tables(start: int) -> Iterator[Any]:
        plan = islice(mixture({name: len(data) for name, data in sources.items()}, rates, n, seed=seed), start, None)
        while chunk := list(islice(plan, CHUNK_ROWS)):
            yield _rows_of(sources, chunk)

    names = columns_with_values(*(data.dataset for data in sources.values()))
    identity = {"sources": {name: data.fingerprint for name, data in sources.items()}, "rates": dict(rates)}
    write_jsonl(out, tables, [*names, *({"source"} - {*names})], {**identity, "n": n, "seed": seed})


def _rows_of(sources: Mapping[str, Preferences], plan: Sequence[tuple[str, int]]) -> Any:
    """Return the planned rows as a table."""
    import pyarrow as pa

    parts: list[Any] = []
    places: list[int] = []
    for name, data in sources.items():
        mine = [(place, row) for place, (source, row) in enumerate(plan) if source == name]
        table: Any = data.dataset.with_format("arrow")[[row for _, row in mine]]
        column = table.column_names.index("source")
        parts.append(table.set_column(column, "source", pa.array([name] * len(mine), pa.string())))
        places += [place for place, _ in mine]
    return pa.concat_tables(parts).take(np.argsort(places))
