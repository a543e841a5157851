"""The files of ``configs/`` that follow from dataclasses are as ``make configs`` writes them."""

from __future__ import annotations

from dataclasses import dataclass

import make_configs
import pytest

from align.settings import registry

FILES = make_configs.files()


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_generated_file_is_up_to_date(file: str) -> None:
    assert (make_configs.CONFIGS / file).read_bytes() == FILES[file].encode(), "run `make configs`"


@pytest.mark.parametrize("file", sorted(FILES))
def test_lines_are_not_too_long(file: str) -> None:
    assert max(map(len, FILES[file].splitlines())) <= 120


def test_every_method_of_this_project_has_its_file() -> None:
    names = {file.stem for file in (make_configs.CONFIGS / "method").glob("*.yaml")}
    assert names == set(registry.choices("methods", shipped=True))


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base."""

    size: int = 1
    """Number of ``parts``, in all."""
    rate: float | None = 1e-8
    """KL of it."""


@dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """One that inherits."""

    words: tuple[str, ...] = ("a", "b: c")
    """A list; null:
    nothing."""
    size: int = 2


def test_own_fields_come_first_and_documentation_is_inherited() -> None:
    assert list(make_configs.lines(Derived)) == [
        "words: [a, 'b: c']  # a list; null: nothing",
        "size: 2  # number of parts, in all",
        "rate: 1.0e-08  # KL of it",
    ]
