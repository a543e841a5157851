"""A W&B workspace and a report on runs, as objects of ``wandb-workspaces``, which needs no network to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from align.dashboard.logged import Logged
from align.dashboard.panels import TABLES, Panel, Section, layout
from align.errors import UserError

__all__ = ["as_json", "report", "require_library", "workspace"]


def require_library() -> None:
    """Raise `UserError` where ``wandb-workspaces`` is not installed."""
    if find_spec("wandb_workspaces") is None:
        raise UserError("align dashboard needs a package that is not installed: pip install wandb-workspaces")


def workspace(runs: Sequence[Logged], entity: str) -> Any:
    """Return the workspace: the sections of what the runs logged, the answers, and groups where there are several."""
    ws = import_module("wandb_workspaces.workspaces")
    sections = [
        ws.Section(name=section.title, panels=[*map(_chart, section.panels)], is_open=place < 4)
        for place, section in enumerate(_sections(runs))
    ]
    if tables := _tables(runs):
        sections.insert(1, ws.Section(name="Samples", panels=tables, is_open=True))
    columns = ["summary:result/win_rate", "summary:result/win_rate/low", "summary:result/win_rate/high"]
    return ws.Workspace(
        entity=entity,
        project=runs[0].project,
        name=_name(runs),
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=max(10, len(runs))),
        runset_settings=ws.RunsetSettings(
            filters=_among(runs),
            pinned_columns=["run:displayName", *(name for name in columns if name.partition(":")[2] in _names(runs))],
        ),
    )


def report(runs: Sequence[Logged], entity: str) -> Any:
    """Return the report: the same panels with a sentence on each run, for reading and sharing."""
    wr = import_module("wandb_workspaces.reports.v2")
    runset = wr.Runset(filters=_among(runs))  # of the report's own project
    blocks: list[Any] = [wr.P(f"Runs: {', '.join(run.folder.name for run in runs)}."), wr.TableOfContents()]
    for section in _sections(runs):
        panels = [*map(_chart, section.panels)]
        blocks += [wr.H1(section.title), wr.PanelGrid(runsets=[runset], panels=_placed(panels))]
    if tables := _tables(runs):
        blocks += [wr.H1("Samples"), wr.PanelGrid(runsets=[runset], panels=_placed(tables, width=24))]
    title = _name(runs)
    return wr.Report(entity=entity, project=runs[0].project, title=title, width="fluid", blocks=blocks)


def as_json(made: Any) -> dict[str, Any]:
    """Return the specification of a workspace or report; the ids that the library draws at random are counted."""
    plain = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return _counted(plain, {})


def _sections(runs: Sequence[Logged]) -> list[Section]:
    sections = layout(_names(runs))
    if len({run.group for run in runs}) > 1:
        sections.append(Section(BY_GROUP, tuple(_by_group(sections))))
    return sections


BY_GROUP = "Groups of runs"


def _by_group(sections: Sequence[Section]) -> list[Panel]:
    """Means over the runs of each group (a recipe, a comparison) of what sums runs up."""
    summed = [metric for section in sections for panel in section.panels for metric in panel.metrics]
    kept = [name for name in dict.fromkeys(summed) if name.startswith(("result/best/", "evaluation/"))]
    kept += [name for name in ("result/win_rate",) if name in summed]
    return [Panel(f"{name} by group", (name,), "groups") for name in kept]


def _names(runs: Sequence[Logged]) -> set[str]:
    return {name for run in runs for name in run.names}


def _name(runs: Sequence[Logged]) -> str:
    first = runs[0].folder.name
    return first if len(runs) == 1 else f"{first} and {len(runs) - 1} more"


def _among(runs: Sequence[Logged]) -> Any:
    expr = import_module("wandb_workspaces.expr")
    return expr.And(expr.Metric("ID").isin([run.id for run in runs]))


def _chart(panel: Panel) -> Any:
    wr = import_module("wandb_workspaces.reports.v2")
    metrics = list(panel.metrics)
    if panel.kind == "line":
        return wr.LinePlot(title=panel.title, x="step", y=metrics)
    if panel.kind == "scatter":
        return wr.ScatterPlot(title=panel.title, x=wr.SummaryMetric(metrics[0]), y=wr.SummaryMetric(metrics[1]))
    grouped = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    return wr.BarPlot(title=panel.title, metrics=metrics, **(grouped if panel.kind == "groups" else {}))


def _tables(runs: Sequence[Logged]) -> list[Any]:
    wr = import_module("wandb_workspaces.reports.v2")
    logged = {table for run in runs for table in run.tables}
    return [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES if name in logged]


def _placed(panels: Sequence[Any], width: int = 8) -> list[Any]:
    """Put panels into rows of 24 columns."""
    wr = import_module("wandb_workspaces.reports.v2")
    across = 24 // width
    for place, panel in enumerate(panels):
        panel.layout = wr.Layout(x=width * (place % across), y=6 * (place // across), w=width, h=6)
    return list(panels)


def _counted(value: Any, seen: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: seen.setdefault(item, f"id{len(seen)}")
            if key in ("id", "__id__") and isinstance(item, str) and item
            else _counted(item, seen)
            for key, item in value.items()
        }
    return [_counted(item, seen) for item in value] if isinstance(value, list) else value
