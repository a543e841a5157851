"""Hostile texts in every place that prints one; the pages have tests of their own, in a browser too."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.table import Table

from align import Preferences, Trainer, TrainerConfig
from align.cli import console as lines
from align.cli.compare.outcome import _print as print_comparison
from align.cli.evaluate import _print_tables
from align.curation.display import as_html, as_text, tokens_of
from align.data.encoding import end_of_turn_id
from align.data.examples import tokenize
from align.data.progress import with_progress
from align.evaluation.measurement import Measurement, Sample, compare
from align.model.policy import Policy
from align.runs import report
from align.runs.card import Origin, model_card
from align.system.console import PlainConsole
from align.system.terminal import visible
from methods import SFT
from tests.align.comparison.conftest import made
from tests.hostile import HOSTILE

PLAIN = [visible(text) for text in HOSTILE]
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ud800-\udfff]")


def terminal() -> tuple[PlainConsole, io.StringIO]:
    """A terminal with colours that is wide enough for every text."""
    out = io.StringIO()
    return PlainConsole(file=out, force_terminal=True, color_system="truecolor", width=2000), out


def printed(out: io.StringIO | str) -> str:
    """All that was printed without the colours and links of our own."""
    text = out if isinstance(out, str) else out.getvalue()
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 40
    assert sum(text != plain for text, plain in zip(HOSTILE, PLAIN, strict=True)) >= 5


@pytest.mark.parametrize("text", [*HOSTILE, "[red]x", "/[b]", "[/]", ":smile:", "[@click=app.bell]x[/]"])
def test_a_console(text: str) -> None:
    """Strings, and strings in tables with all their parts; rich would fail on a mark that closes nothing."""
    console, out = terminal()
    console.print(text, soft_wrap=True)
    table = Table(title=text, caption=text)
    table.add_column(text, footer=text)
    table.add_row(text)
    console.print(table)
    shown = printed(out)
    assert not ACTS.search(shown)
    first = visible(text).splitlines()[0].strip()
    assert shown.count(first) >= 4


@pytest.mark.parametrize("say", [lines.say, lines.report, lines.report_own])
def test_sentences(say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for text in HOSTILE:
        say(text)
    captured = capsys.readouterr()
    assert captured.out + captured.err == "".join(f"{plain}\n" for plain in PLAIN)


def test_results_of_a_run() -> None:
    console, out = terminal()
    for text in HOSTILE:
        before, after = (Measurement([Sample(text, text, 3, 0.1, {text: score})] * 16) for score in (0.2, 0.8))
        report.print_samples(before.samples, after.samples, console, limit=1)
        report.print_evaluation({**compare(before, after), "notes": [text]}, console, title=text, models=(text, text))
    assert not ACTS.search(printed(out))
    for plain in PLAIN:
        assert printed(out).count(plain.splitlines()[0].strip()) >= 5


def test_tables_of_a_measurement() -> None:
    console, out = terminal()
    rate = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    for text in HOSTILE:
        point = {"n": 2, "kl": 0.1, "kl_bound": 0.2, "score": 0.3, "others": {text: 0.4}}
        found = {"milliseconds_per_response": {text: 1.0}, "best_of_n": [point]}
        _print_tables({**found, "scorer_accuracy": {text: {text: rate}}, "same_accuracy": {text: 0.5}}, console)
    assert not ACTS.search(printed(out))


def test_a_comparison(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    found = made({"a": 0.3})
    for text in HOSTILE:
        row = replace(found.rows[0], label=text)
        print_comparison(replace(found, rows=[row]), [text], Path("x"))
    shown = capsys.readouterr().out
    assert not ACTS.search(printed(shown))
    for plain in PLAIN:
        assert plain.splitlines()[0].strip() in shown


@pytest.mark.parametrize("name", ["[red]x", "x[", "[b]\u00e9", "[link=file:x]y"])
def test_a_run_of_that_name(
    name: str, tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = Preferences.from_rows([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    for _ in range(2):  # the second one finds it finished
        policy, config = copy.deepcopy(tiny_policy), TrainerConfig(steps=1, max_length=200)
        Trainer(policy, Path(f"[{name}") / name, config, if_exists="resume").fit(SFT(), rows)
    shown = capsys.readouterr().out
    assert f"Run folder: [{name}/{name}\n" in shown
    assert f"This run is finished: [{name}/{name}\n" in shown


def test_the_bar_of_a_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    class Bar:
        def __init__(self, *, desc: str, **_: Any) -> None:
            named.append(desc)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("datasets.utils.tqdm", Bar)
    for text in HOSTILE:
        if len(text) < 100 and not {"/", "\x00", "\ud800"} & set(text):
            list(with_progress([], str(tmp_path / text)))
    assert len(named) >= 15
    assert not ACTS.search("".join(named))


def test_tokens(tiny_policy: Policy, tmp_path: Path) -> None:
    texts = [text for text in HOSTILE if "\x00" not in text and "\ud800" not in text]
    rows = [{"prompt": text, "chosen": text, "rejected": "no"} for text in texts]
    tokenizer = tiny_policy.tokenizer
    examples = tokenize(Preferences.from_rows(rows, max_rejected=0.1), tokenizer, max_length=4000, unit="pair")
    tokens = [row for example in examples for row in tokens_of(example, tokenizer, end_of_turn_id(tokenizer))]
    console, out = terminal()
    for row in tokens:
        console.print(as_text(row))
    assert not ACTS.search(printed(out))
    as_html(tokens, tmp_path / "page.html", title=HOSTILE[0])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<img" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_card(text: str) -> None:
    """Neither the metadata nor the page nor the program in it is more than it should be."""
    plain = _card("name")
    shown = _card(text)
    body, metadata = _parts(shown)
    assert yaml.safe_load(metadata).keys() == yaml.safe_load(_parts(plain)[1]).keys()
    assert body.count("\n") == _parts(plain)[0].count("\n")
    assert not ACTS.search(body)
    assert not re.search(r"(?<!\\)<(?!\w*\.)", re.sub(r"`[^`]*`|```[\s\S]*?```", "", body))
    program = re.search(r"```python\n([\s\S]*?)```", body)
    assert program is not None
    compile(program[1], "card", "exec")


def _parts(card: Any) -> tuple[str, str]:
    _, metadata, body = str(card).split("---\n", 2)
    return body, metadata


def _card(text: str) -> Any:
    name = text.replace("/", "∕")  # no file has it in its name
    metrics = {name: {"before": 0.1, "after": 0.2}}
    win = {"by": name, "mean": 0.6, "low": 0.5, "high": 0.7, "n": 8, "over": name}
    return model_card(
        base=name,
        adapters=True,
        settings={"name": "DPO", "value": text},
        evaluation={"metrics": metrics, "notes": [text], "win_rate": win},
        purpose="Trains.",
        origin=Origin(name, "abc", name, "def", name),
        chat=True,
    )
