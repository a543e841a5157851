"""Public names that are loaded when asked for."""

from __future__ import annotations

import fractions
import subprocess
import sys
from pathlib import Path

import pytest

import methods
import methods.ppo
from align.system.lazy import lazy, no_grad

ROOT = Path(__file__).resolve().parents[3]


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


def in_python(code: str) -> str:
    """Run code in a process that has not imported torch; returns what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_method_is_imported_without_torch() -> None:
    code = (
        "import sys; from align.system.lazy import torch_when_used; torch_when_used()\n"
        "from align.settings import registry\n"
        "[registry.load('methods', name) for name in registry.choices('methods', shipped=True)]\n"
        "print('torch._C' in sys.modules)"
    )
    assert in_python(code) == "False"


def test_torch_is_made_once_where_a_part_of_it_is_imported_first() -> None:
    """Loading torch imports the part too; made again, its classes would be others than those that torch uses."""
    code = (
        "import sys; from align.system.lazy import torch_when_used; torch_when_used()\n"
        "import torch.nn.functional as F\n"
        "import torch, torch.distributed\n"
        "print(F is sys.modules['torch.nn.functional'] is torch.nn.functional, "
        "type(torch.nn.__spec__.loader).__name__, sum('align' in type(f).__module__ for f in sys.meta_path))"
    )
    assert in_python(code) == "True SourceFileLoader 0"


def test_no_grad_is_that_of_torch() -> None:
    import torch

    @no_grad
    def enabled(factor: int) -> tuple[int, bool]:
        """Its own text."""
        return factor, torch.is_grad_enabled()

    assert (enabled(2), enabled(factor=3), torch.is_grad_enabled()) == ((2, False), (3, False), True)
    assert enabled.__doc__ == "Its own text."
