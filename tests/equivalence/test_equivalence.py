"""The result of a step does not depend on how it is computed: every method in every way."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from tests.equivalence.cases import ALL, FAMILIES, MAIN, Case
from tests.equivalence.matrix import COMPARISONS, applies, compare, compare_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*activation_checkpointing.*:FutureWarning",
    # PEFT on stacked experts:
    "ignore:.*_pattern keys did not match any targeted module:RuntimeWarning",
)
QUICK = ("plain", "full")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Generator[None]:
    """Several threads are slower than one on tiny matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def is_quick(case: Case, name: str) -> bool:
    """Everything of the main methods; of a family whatever depends on it, of all the sums over parts."""
    return case in MAIN or name == "parts" or (case in FAMILIES and name in QUICK)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, marks=() if is_quick(case, name) else pytest.mark.slow, id=f"{case}-{name}")
        for case in ALL
        for name in COMPARISONS
        if applies(case, name)
    ],
)
def test_the_way_changes_nothing(case: Case, name: str) -> None:
    difference, limit = compare(case, name)
    assert difference.largest <= limit, f"{difference}, where rounding explains {limit:.1e}"


@pytest.mark.parametrize(
    "cases",
    [MAIN, pytest.param([case for case in ALL if case not in MAIN], marks=pytest.mark.slow)],
    ids=["main", "rest"],
)
def test_two_ranks_that_resume_do_what_one_process_does(cases: list[Case]) -> None:
    for case, (difference, limit) in compare_ranks(cases).items():
        assert difference.largest <= limit, f"{case}: {difference}, where rounding explains {limit:.1e}"
