"""Runs without curves, also in processes of their own."""

from __future__ import annotations

import pytest

import align.reporting.page as page
import align.training.monitor as monitor


def leave_out_charts(patch: pytest.MonkeyPatch) -> None:
    """Have runs draw nothing, until the patch is undone."""
    patch.setattr(monitor.report, "plot_curves", lambda _: None)
    for name in ("curves_of", "bars_of"):
        patch.setattr(page, name, lambda _: [])
