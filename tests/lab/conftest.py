"""The exact lab: worlds so small that everything is summed, computed in float64; and the record of its figures."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.lab.enumeration import Enumeration

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-figures", action="store_true", help="write the lab's figures into docs/correctness.md")


@dataclass
class Figures:
    """Checks figures and keeps them as rows of a table."""

    rows: list[str] = field(default_factory=list)

    def equal(self, what: str, expected: Any, found: Any, bound: float) -> None:
        """Every number within ``bound`` of the expected one; an array is shown by its largest magnitude."""
        expected, found = np.asarray(expected, dtype=float), np.asarray(found, dtype=float)
        assert expected.shape == found.shape, what
        difference = float(np.abs(found - expected).max())
        assert difference <= bound, f"{what}: expected {expected}, found {found}, difference {difference} > {bound}"
        cells = [what, _largest(expected), _largest(found), f"{difference:.1e}", f"{bound:.0e}"]
        self.rows.append(f"| {' | '.join(cells)} |")

    def at_least(self, what: str, found: float, bound: float) -> None:
        """A number that may be larger."""
        assert found >= bound, f"{what}: {found} < {bound}"
        self.rows.append(f"| {what} | ≥ {bound:g} | {found:.4g} | | |")

    def state(self, what: str, found: float) -> None:
        """A number that is what it is, such as a known bias."""
        self.rows.append(f"| {what} | | {found:.4g} | | |")


def _largest(values: np.ndarray) -> str:
    if values.ndim == 0:
        return f"{values:.6g}"
    return f"{values.size} numbers up to {np.abs(values).max():.6g}"


_ALL: dict[str, Figures] = {}


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """The figures of the test's module, one section of the page."""
    return _ALL.setdefault(request.path.stem, Figures())


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--write-figures", default=False):
        return
    page = PAGE.read_text(encoding="utf-8")
    for section, figures in _ALL.items():
        table = ["| What | Expected | Found | Difference | Bound |", "|---|---|---|---|---|", *figures.rows]
        text = "\n".join([f"<!-- {section} -->", *table, "<!-- end -->"])
        page, replaced = re.subn(rf"<!-- {section} -->\n.*?<!-- end -->", lambda _, text=text: text, page, flags=re.S)
        assert replaced == 1, f"{PAGE} has no place for the figures of {section}"
    PAGE.write_text(page, encoding="utf-8")


@pytest.fixture(autouse=True)
def float64(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let the toolkit's own code compute in double precision, so that errors of its formulas stand out."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr("align.model.roles.require_classifier", lambda _: None)  # no head is saved here
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def world() -> Enumeration:
    """Three prompts with 15 responses each."""
    return Enumeration()
