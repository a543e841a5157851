"""``docs/results.md``, made of its template and of what the experiments left in ``docs/results/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from align.system.files import read_json
from experiments.report import needed, shown

__all__ = ["page"]


def page(docs: Path) -> str:
    """Return the page; experiments come in the order of their claims."""
    found = [{"name": file.stem, **read_json(file)} for file in sorted((docs / "results").glob("*.json"))]
    environment = Environment(
        loader=FileSystemLoader(docs), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {"shown": shown, "needed": needed, "fit": _fit}
    experiments = [_prepared(one) for one in sorted(found, key=lambda one: one["claims"])]
    return environment.get_template("results.md.jinja").render(experiments=experiments)


def _prepared(content: dict[str, Any]) -> dict[str, Any]:
    anchor = re.sub(r"[^\w -]", "", content["title"].lower()).replace(" ", "-")
    return {**content, "anchor": anchor}


def _fit(fit: Mapping[str, Any]) -> str:
    form = "d(α − β·d)" if fit["form"] == "best_of_n" else "d(α − β·log d)"
    peak = f", largest at d = {fit['peak']:.1f}" if fit["peak"] is not None else ""
    return f"{form} with α = {fit['alpha']:.3f}, β = {fit['beta']:.3f} (residual {fit['residual']:.3f}){peak}"
