"""Faults that are put into a run, by the check that is to find them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.doctor.check import Check
from align.doctor.checks import CHECKS
from align.doctor.patient import Patient
from tests.align.doctor.conftest import Make

BY_NAME: dict[str, Check] = {one.name: one for one in CHECKS}
Fault = Callable[["Ward"], Patient]


@dataclasses.dataclass(frozen=True)
class Ward:
    """Fixtures that a fault is made with."""

    make: Make
    patch: pytest.MonkeyPatch
    folder: Path
    model: Path

    def copy_of_model(self) -> Path:
        return Path(shutil.copytree(self.model, self.folder / "model"))

    def template(self, text: str, **settings: Any) -> Patient:
        file = self.folder / "template.jinja"
        file.write_text(text)
        return self.make(model={"chat_template": str(file)}, **settings)


class Faults(dict[str, tuple[Fault, str]]):
    """Of each check by name: how its fault is put in, and words that it says."""

    def of(self, name: str, said: str) -> Callable[[Fault], Fault]:
        def keep(put_in: Fault) -> Fault:
            assert name not in self
            self[name] = put_in, said
            return put_in

        return keep
