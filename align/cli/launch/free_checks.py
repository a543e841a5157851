"""Warnings of a run before it begins: they cost nothing to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.cli.console import report
from align.cli.launch.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Preferences, TokenizedPreferences

__all__ = ["warn_of"]


def warn_of(
    run: Run,
    data: tuple[Preferences, Preferences | None],
    tokenizer: PreTrainedTokenizerBase,
    examples: TokenizedPreferences,
) -> None:
    """Say what the doctor's free checks find wrong; the run goes on, as it would have without them."""
    from align.doctor.check import examine  # with torch
    from align.doctor.checks import FREE
    from align.doctor.patient import Patient

    parts = {"data": lambda: data, "tokenizer": lambda: tokenizer, "examples": lambda: examples}
    patient = Patient(run.config, run.method, parts)
    _ = patient.plan  # a run that has none ends here, and is not warned of it too
    for finding in examine(patient, FREE):
        if finding.state == "wrong":
            report(f"Warning: {finding.name}: {finding.says}")
