"""The report as a page: one self-contained HTML file for a run, or for several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.curation.display import Token, legend_html, row_html
from align.data.load_report import LoadReport
from align.diagnosis.verdict import diagnose
from align.evaluation.measurement import Sample, showcase
from align.reporting.data_summary import read_tokens
from align.reporting.differences import differences
from align.reporting.plots import LINES, bars_of, curves_of
from align.reporting.record import Record
from align.runs.report import win_rate_sentences
from align.system.charts import COLOURS
from align.system.files import write_text
from align.system.pages import duration, pages

__all__ = ["REPORT", "report", "write_report"]

REPORT = "report.html"
_SHOWN = 8
"""Prompts whose answers are shown."""
_LONGEST = 2000
"""Characters of a text that are shown."""
_TOKENS = 300
"""Tokens of a row that are shown: as many of its beginning as of its end."""


def write_report(folder: Path, *, finished: bool | None = None) -> Path:
    """Write ``report.html`` into the folder of a run, from what is there; returns the file.

    ``finished``: what the report says of the run; None: whether ``final/`` is there.

    Raises:
        UserError: There is no run.
    """
    record = Record.read(folder)
    write_text(folder / REPORT, report([record if finished is None else replace(record, is_finished=finished)]))
    return folder / REPORT


def report(records: Sequence[Record]) -> str:
    """Return the HTML of one run, or of several: how they came out, curves, evaluation, answers, data, settings."""
    environment = pages(Path(__file__).parent)
    names = [record.name for record in records]
    return environment.get_template("page.html.jinja").render(
        title=names[0] if len(names) == 1 else f"{', '.join(names)} side by side",
        records=records,
        alone=len(records) == 1,
        verdicts={record.name: _verdict(record) for record in records},
        curves=curves_of(records),
        lines=[(name, COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]) for i, name in enumerate(names)],
        metrics=bars_of(records),
        answers=_before_and_after(records[0]) if len(records) == 1 else _side_by_side(records),
        differing=_differing(records),
        data={record.name: _data(record) for record in records},
        legend=legend_html(),
        tokens=[_row(row) for row in read_tokens(records[0].data)] if len(records) == 1 and records[0].data else [],
        facts={record.name: _facts(record) for record in records},
    )


def _verdict(record: Record) -> list[str]:
    """Return how the run came out, and how it fares against the models beside it."""
    begun = [] if record.is_finished else ["This run is not finished."]
    if not any(logged["step"] for logged in record.metrics):
        return begun
    beside = {"win_rates_beside": record.evaluation.get("win_rates_beside", ())}
    return [*begun, *diagnose(record.folder).lines(), *win_rate_sentences(beside)]


def _before_and_after(record: Record) -> list[tuple[str, list[tuple[str, str, Markup]]]]:
    """Return prompts with both answers: whose, its measurements, its text with the differences marked."""
    out: list[tuple[str, list[tuple[str, str, Markup]]]] = []
    if len(record.before) != len(record.after):
        return out
    for i in showcase(record.before, _SHOWN):
        old, new = record.before[i], record.after[i]
        left, right = differences(_cut(old.response), _cut(new.response))
        out.append((_end(old.prompt), [("before", _measured(old), left), ("after", _measured(new), right)]))
    return out


def _side_by_side(records: Sequence[Record]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return prompts that all runs answered, with the answer of each."""
    answers = [{sample.prompt: sample for sample in record.after} for record in records]
    shared = [sample for prompt, sample in answers[0].items() if all(prompt in of for of in answers)]
    return [
        (
            _end(shared[i].prompt),
            [
                (record.name, _measured(sample), _cut(sample.response))
                for record, sample in zip(records, (of[shared[i].prompt] for of in answers), strict=True)
            ],
        )
        for i in showcase(shared, _SHOWN)
    ]


def _measured(sample: Sample) -> str:
    kl = [] if sample.kl is None else [f"KL {sample.kl:.2f}"]
    return " · ".join(
        [*(f"{name} {value:.3f}" for name, value in sample.scores.items()), f"{sample.tokens} tokens", *kl]
    )


def _cut(text: str) -> str:
    rest = len(text) - _LONGEST
    return text if rest <= 0 else f"{text[:_LONGEST]} … ({rest:,} more characters)"


def _end(prompt: str) -> str:
    """Return the end of a long conversation, where the question is."""
    return prompt if len(prompt) <= _LONGEST else f"… {prompt[-_LONGEST:]}"


def _differing(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ, with the value of each; "–" where a run does not have it."""
    settings = [record.flat_settings for record in records]
    names = dict.fromkeys(name for of in settings for name in of if name not in ("run_name", "output_root"))
    rows = [(name, [of.get(name, "–") for of in settings]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _data(record: Record) -> list[dict[str, Any]]:
    """Return for each part of the data its numbers, and the load reports' sentences on what was lost."""
    out: list[dict[str, Any]] = []
    for part, found in (record.data or {}).get("parts", {}).items():
        reports = [LoadReport(**found[name]) for name in ("loading", "tokenising")]
        remarks = [line.strip() for one in reports if one.lost or one.noted or one.warnings for line in _remarks(one)]
        out.append({**found, "part": part, "loading": reports[0], "remarks": list(dict.fromkeys(remarks))})
    return out


def _remarks(one: LoadReport) -> list[str]:
    """Return the lines below the first, which the table has."""
    return one.summary().split("\n")[1:]


def _row(row: Sequence[Token]) -> Markup:
    """Return a row; of one too long its beginning and its end, of the padding one token and how many there are."""
    said = Markup('<span class="soft"> {} </span>')
    padding = [token for token in row if token.kind == "pad"]
    kept = row[: len(row) - len(padding)]
    end = row_html(padding[:1]) + said.format(f"× {len(padding):,}") if padding else Markup()
    if len(kept) <= _TOKENS:
        return row_html(kept) + end
    gap = said.format(f"… {len(kept) - _TOKENS:,} tokens …")
    return row_html(kept[: _TOKENS // 2]) + gap + row_html(kept[-_TOKENS // 2 :]) + end


def _facts(record: Record) -> Mapping[str, str]:
    """Return what it cost, and how to do it again."""
    steps = [metrics for metrics in record.metrics if "train/tokens" in metrics]
    of_steps = {
        name: sum(step.get(name) or 0.0 for step in record.metrics) for name in ("train/seconds", "train/tokens")
    }
    drawn = sum(step.get("rollout/tokens/drawn") or 0.0 for step in record.metrics)
    cost, facts = record.cost, dict[str, str]()
    if cost:
        since = f", from step {cost['first_step'] + 1:,} on" if cost["first_step"] else ""
        facts["Time"] = f"{duration(cost['seconds'])} in all{since}"
        facts["Memory"] = f"{cost['peak_bytes'] / 2**30:.2f} GiB at most" + (
            f", {cost['peak_device_bytes'] / 2**30:.2f} GiB on the accelerator" if "peak_device_bytes" in cost else ""
        )
    if steps:
        facts["Steps"] = f"{len(steps):,} logged, which took {duration(of_steps['train/seconds'])}"
        facts["Tokens"] = f"{of_steps['train/tokens']:,.0f} trained on" + (f", {drawn:,.0f} drawn" if drawn else "")
    if record.command:
        facts["Command"] = record.command
    if packages := record.environment.get("packages"):
        facts["Versions"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    if record.environment:
        versions = record.environment
        facts["Machine"] = f"Python {versions['python']}, {versions['platform']}, {versions['cpus']} cores"
    return facts
