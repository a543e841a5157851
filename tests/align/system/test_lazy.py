"""Public names that are loaded when asked for."""

from __future__ import annotations

import fractions

import pytest

import methods
import methods.ppo
from align.system.lazy import lazy


def test_a_name_is_that_of_its_module() -> None:
    load = lazy("numbers", {"Fraction": "fractions"})
    assert load("Fraction") is fractions.Fraction
    with pytest.raises(AttributeError, match="module 'numbers' has no attribute 'gcd'"):
        load("gcd")


@pytest.mark.parametrize("package", [methods, methods.ppo])
def test_every_public_name_of_a_lazy_package_is_the_class_of_that_name(package: object) -> None:
    names = package.__all__  # pyright: ignore[reportAttributeAccessIssue]
    assert [getattr(package, name).__name__ for name in names] == names
    assert not hasattr(package, "SIMPO")
