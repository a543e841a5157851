"""The report: all that a run left, as text, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markupsafe import Markup

from align.errors import UserError
from align.reporting import plots
from align.reporting.page import report, write_report
from align.reporting.record import Record
from tests.hostile import HOSTILE

Run = Callable[..., Path]


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(*folders: Path) -> Reader:
    return Reader(report([Record.read(folder) for folder in folders]))


def test_a_report_has_all_that_the_run_left(run: Run) -> None:
    shown = read(run())
    for text in (
        "win rate over the start model by text 100.0%",
        "raise method.beta.",  # the warning
        "before",
        "the old answer",
        "rejected 2: no prompt",
        "pairs.jsonl:9: too long",
        "Half of the rows are alike.",
        "1 min 15 s in all",
        "1.50 GiB at most",
        "40 logged, which took 20 s",
        "4,000 trained on",
        "align method=dpo data=text",
        "transformers",
        "method.beta",
    ):
        assert text in shown.text, text
    assert {"svg", "table", "ins", "del"} <= set(shown.tags)


def test_places_on_this_machine_are_not_shown(run: Run) -> None:
    record = Record.read(run(text="/home/me/mine/pairs.jsonl"))
    assert record.data is not None
    shown = str([record.flat_settings, record.command, record.data["parts"], record.warnings])
    assert "/home" not in shown
    assert (record.flat_settings["model.name"], record.command) == ("pairs.jsonl", "align method=dpo data=pairs.jsonl")
    assert record.data["tokens"][0][0]["text"] == "/home/me/mine/pairs.jsonl"  # an example stays what it is


def test_nothing_is_asked_for_and_nothing_runs(run: Run) -> None:
    shown = read(run())
    assert not {"script", "link", "img", "iframe", "form"} & set(shown.tags)
    addresses = [value or "" for name, value in shown.attributes if name in ("src", "href", "xlink:href")]
    assert all(address.startswith("#") for address in addresses)
    assert not [name for name, _ in shown.attributes if name.startswith("on")]


def test_headings_go_down_by_one_and_tables_have_headers(run: Run) -> None:
    shown = read(run("a"), run("b"))
    levels = [int(tag[1]) for tag in shown.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert shown.tags.count("table") == shown.tags.count("thead")
    ids = [value for name, value in shown.attributes if name == "id"]
    assert not any(value and value.startswith(("figure_", "axes_")) for value in ids)  # once for each chart


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_stay_texts(text: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "svg_chart", lambda *_: Markup("<svg></svg>"))  # has numbers alone
    plain, shown = read(run()), read(run("other", text=text))
    changing = ("ins", "del")  # as many as words differ
    assert [tag for tag in shown.tags if tag not in changing] == [tag for tag in plain.tags if tag not in changing]
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert not set("\x00\x1b\x9b\u202e\u2066\u200e\u2028") & set(shown.text)


def test_a_run_that_is_not_finished_says_so(run: Run) -> None:
    folder = run()
    for name in ("evaluation.json", "data.json", "cost.json", "samples.jsonl", "metrics.jsonl", "environment.json"):
        (folder / name).unlink()
    (folder / "final").rmdir()
    shown = read(folder)
    assert "This run is not finished." in shown.text
    assert "did not record how its data were read" in shown.text


def test_several_runs_are_side_by_side(run: Run) -> None:
    shown = read(run("a"), run("b", beta=0.5, text="other"))
    for text in ("a, b side by side", "method.beta", "0.5", "a, after", "Settings that differ"):
        assert text in shown.text
    assert shown.text.count("run_name") == 2  # among all settings alone
    assert "Prompt 1" not in shown.text  # they answered other prompts
    both = read(run("c"), run("d"))
    assert "Prompt 8" in both.text
    assert "None." in both.text


def test_long_texts_and_many_settings_stay_small(run: Run) -> None:
    page = write_report(run(answer="a word or two " * 5_000))
    assert page.stat().st_size < 2e6


def test_a_folder_without_a_run_is_refused_with_the_stages_of_a_recipe(tmp_path: Path, run: Run) -> None:
    with pytest.raises(UserError, match=r"nothing is not the folder of a run: config\.yaml is missing\."):
        Record.read(tmp_path / "nothing")
    run("1-sft")
    with pytest.raises(UserError, match=rf"its stages are: {tmp_path}/1-sft\."):
        Record.read(tmp_path)
