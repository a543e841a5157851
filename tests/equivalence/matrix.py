"""The equivalence matrix: the result of a step does not depend on the way it is computed.

Every case of :mod:`tests.equivalence.cases` is computed in the ways of :mod:`tests.equivalence.ways`, and compared.
`make correctness` writes the differences into docs/correctness.md.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.system.processes import Processes
from tests.equivalence.cases import ALL, TRANSPOSED, Case
from tests.equivalence.ways import Outcome, Way, make_policy, run
from tests.forked import on_ranks


@dataclass(frozen=True)
class Difference:
    """The largest relative differences over all steps."""

    loss: float
    """Of every loss that is logged, relative to the largest of the step, or 1."""
    gradient: float
    """In the Euclidean norm, of every trained role; also of the norm before clipping and of the weights at the end."""

    @property
    def largest(self) -> float:
        """Of both."""
        return max(self.loss, self.gradient)

    def __str__(self) -> str:
        return f"{self.loss:.0e} / {self.gradient:.0e}" if self.largest else "0"


def difference(found: Outcome, expected: Outcome) -> Difference:
    """Compare two outcomes; what was drawn must be the same."""
    assert found.rows == expected.rows, "other responses were drawn"
    assert len(found.losses) == len(expected.losses) > 0
    losses: list[float] = []
    for ours, theirs in zip(found.losses, expected.losses, strict=True):
        assert ours.keys() == theirs.keys()
        largest = max([1.0, *map(abs, theirs.values())])
        losses += [abs(ours[name] - theirs[name]) / largest for name in theirs]
    norms = zip(found.norms, expected.norms, strict=True)  # 0 where nothing teaches
    gradients = [abs(ours / theirs - 1) if theirs else abs(ours) for ours, theirs in norms]
    pairs = [*zip(found.gradients, expected.gradients, strict=True), (found.weights, expected.weights)]
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for role in {name.partition(".")[0] for name in theirs}:
            names = [name for name in theirs if name.startswith(f"{role}.")]
            a, b = (torch.cat([part[name].double().flatten() for name in names]) for part in (ours, theirs))
            gradients.append(float((a - b).norm() / b.norm()) if b.any() else float(a.norm()))
    assert all(map(math.isfinite, losses + gradients))
    return Difference(max(losses), max(gradients))


WHOLE = Way()
ADAMW = Way(optimizer="adamw")
FIRST = Way(max_grad_norm=1e9, steps=1)
UNMOVED = Way(moved=False)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A way of computing and the one that it must agree with."""

    way: Way
    like: Way = WHOLE
    exact: bool = False
    """Nothing may differ, not even by rounding."""
    given: bool = False
    """Both compute on the responses that the second has drawn: rounding to bfloat16 changes what is drawn."""


COMPARISONS: dict[str, Comparison] = {
    "alone": Comparison(way=Way(tokens=1)),
    "parts": Comparison(way=Way(tokens=60)),
    "flat": Comparison(way=Way(layout="flat", tokens=60)),
    "packed": Comparison(way=Way(packed=True, tokens=60)),
    "plain": Comparison(way=Way(layout="plain")),
    "checkpointing": Comparison(way=Way(checkpointing=True)),
    "cached": Comparison(way=replace(UNMOVED, cached=True), like=UNMOVED),
    "full": Comparison(way=replace(FIRST, full=True), like=FIRST),
    "resumed": Comparison(way=replace(ADAMW, resumed=True), like=ADAMW, exact=True),
    "bfloat16": Comparison(way=Way(base="bfloat16"), like=Way(base="rounded"), given=True),
}
RANKS = "2 ranks"
PARTS = COMPARISONS["parts"].way  # of each rank
FIGURES: dict[tuple[str, str], Difference] = {}
"""(case, comparison) → difference, of all that were compared in this process."""


def applies(case: Case, name: str) -> bool:
    """Return whether a comparison says something of a case: not every method has a reference to cache.

    Rounding inside the model, to bfloat16, is a matter of its family's code in transformers, so one family is enough.
    """
    return (name != "cached" or hasattr(case.method, "reference")) and (name != "bfloat16" or case.model == "llama")


def compare(case: Case, name: str) -> tuple[Difference, float]:
    """Compare two ways of computing a case; returns the difference and the limit that rounding sets to it."""
    comparison = COMPARISONS[name]
    like = outcome_of(case, comparison.like)
    found = run(case, comparison.way, drawn=like if comparison.given else None)
    if comparison.way.full:
        found = replace(found, gradients=[_of_adapters(case, found)], norms=[], weights={})
        (gradient,) = like.gradients
        like = replace(like, gradients=[{name: gradient[name] for name in found.gradients[0]}], norms=[], weights={})
    FIGURES[str(case), name] = result = difference(found, like)
    return result, 0.0 if comparison.exact else limit(case, bfloat16=comparison.way.base == "bfloat16")


@cache
def outcome_of(case: Case, way: Way) -> Outcome:
    """An outcome that others are compared with."""
    return run(case, way)


@cache
def limit(case: Case, *, bfloat16: bool = False) -> float:
    """The largest difference that rounding explains: three times that of rounding every frozen weight once.

    A weight is rounded by 2^-24 in float32, by 2^-9 in bfloat16, every intermediate result likewise; in float32 the
    limit is at least 1e-6. Both are more than a single rounding because the gradients of tokens and responses largely
    cancel: the sum of their sizes is up to eight times the size of their sum.
    """
    like = Way(base="rounded") if bfloat16 else WHOLE
    given = outcome_of(case, like)
    floor = difference(run(case, replace(like, noise=2**-9 if bfloat16 else 2**-24), drawn=given), given)
    return max(0.0 if bfloat16 else 1e-6, 3 * floor.largest)


def _of_adapters(case: Case, full: Outcome) -> dict[str, Tensor]:
    """The gradient of the adapters from that of the whole weights: W = W₀ + s·BA, so dA = s·BᵀG and dB = s·GAᵀ.

    Adapters on the stacked weights of experts are left out.
    """
    policy, scale = make_policy(case, FIRST), 2.0
    case.method.begin(policy)
    (gradient,) = full.gradients
    adapters = {name: parameter.detach() for name, parameter in policy.parameters(case.method.trains).items()}
    out = {name: gradient[name] for name in adapters if name.endswith(".score.weight")}
    for name, A in adapters.items():
        if not name.endswith(".lora_A.weight") or ".experts." in name:
            continue
        b = name.replace(".lora_A.", ".lora_B.")
        G = gradient[name.replace("base_model.model.", "", 1).replace(".lora_A.", ".")]
        G = G.T if case.model == TRANSPOSED else G
        out |= {name: scale * adapters[b].T @ G, b: scale * G @ A.T}
    return out


# Two ranks


def compare_ranks(cases: Sequence[Case]) -> dict[Case, tuple[Difference, float]]:
    """Run cases on two ranks of one process group, resumed and in parts, and compare with one whole process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.pt"
        on_ranks(2, _on_a_rank, file, list(map(str, cases)))
        outcomes: list[dict[str, Any]] = torch.load(file)
    results: dict[Case, tuple[Difference, float]] = {}
    for case, found in zip(cases, outcomes, strict=True):
        FIGURES[str(case), RANKS] = result = difference(Outcome(**found), outcome_of(case, WHOLE))
        results[case] = result, limit(case)
    return results


def _on_a_rank(file: Path, names: Sequence[str]) -> None:
    outcomes = [run(case, replace(PARTS, resumed=True)) for case in ALL if str(case) in names]
    if Processes().is_first:
        kept = ("losses", "norms", "gradients", "weights", "rows")
        torch.save([{name: getattr(outcome, name) for name in kept} for outcome in outcomes], file)
    Processes().barrier()


# The table


def table() -> str:
    """The figures as Markdown: relative difference of loss / of gradient."""
    columns = [*COMPARISONS, RANKS]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for case in ALL:
        cells = (str(FIGURES.get((str(case), name), "")) for name in columns)
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)
