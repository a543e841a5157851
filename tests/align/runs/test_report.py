"""Tables, sentences and pictures of a run, by what they show."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from align.evaluation.measurement import Measurement, Sample, compare
from align.evaluation.statistics import mean, rate
from align.runs import report
from align.runs.tracker import Tracker, by_phase
from align.system.charts import chart
from align.system.files import write_json


def samples(*scores: float, kl: float | None = 0.5) -> list[Sample]:
    return [Sample(f"p{i}", "a b", 3, kl, {"true_reward": score}) for i, score in enumerate(scores)]


def printed(table: dict[str, Any], **settings: Any) -> list[list[str]]:
    """Cells of the table by line, then the sentences."""
    out = StringIO()
    report.print_evaluation(table, Console(file=out, width=200, force_terminal=False), **settings)
    lines = [line for line in out.getvalue().splitlines() if line.strip("┏━┳┓┡╇┩└─┴┘ ")]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]


def test_a_table_has_a_column_for_each_model_that_measured_something() -> None:
    """0, 1, 2 have mean 1 and an interval of 4.303/√3 to both sides; the start model has no divergence."""
    table = compare(Measurement(samples(0.0, 1.0, 2.0, kl=None)), Measurement(samples(2.0, 2.0, 2.0)))
    table["notes"] = ["One prompt was left out"]
    lines = printed(table)
    assert lines[:2] == [
        ["Before and after training, held-out data"],
        ["metric", "before", "after", "n", "meaning"],
    ]
    assert ["true_reward", "1.000", "2.000", "3", "quality in the embedded world, 0 to 1"] in lines
    assert ["", "[-1.484, 3.484]", "[2.000, 2.000]", "", ""] in lines
    assert ["kl", "–", "0.500", "3", "divergence from the reference (or the start model), nats per response"] in lines
    assert lines[-2] == ["One prompt was left out"]
    assert lines[-1][0].startswith("Win rate of the trained model over the start model, by true_reward: 83.3% (95 %")


def test_a_column_without_any_value_is_not_shown() -> None:
    table = {"metrics": {"accuracy": {"before": None, "after": 0.5}}, "intervals": {}}
    lines = printed(table, title="T")
    assert lines[:3] == [
        ["T"],
        ["metric", "after", "n", "meaning"],
        ["accuracy", "0.500", "", report.MEANINGS["accuracy"]],
    ]
    assert printed({}) == []


def test_win_rates_name_both_models_and_what_they_count() -> None:
    win = {"by": "judge", "mean": 0.6, "low": 0.5, "high": 0.7, "n": 400}
    beside = {**win, "over": "runs/sft", "role": "the model that drew the candidates", "runs": 3}
    assert report.win_rate_sentences({"win_rate": win, "win_rates_beside": [beside]}, ("A", "B")) == [
        "Win rate of B over A, by judge: 60.0% (95 % interval 50.0% to 70.0%, 400 prompts; 50 % is no difference).",
        "Win rate of B over the model that drew the candidates (runs/sft), by judge: 60.0% (95 % interval 50.0% to "
        "70.0%, 3 runs, 400 prompts; 50 % is no difference).",
    ]
    assert report.win_rate_sentences({}) == []


@pytest.mark.parametrize(
    ("value", "estimate", "text"),
    [
        (None, None, "–"),
        (0.12345, None, "0.123"),
        (0.5, {"low": None, "high": None}, "0.500"),
        (0.5, {"low": 0.25, "high": 0.75}, "0.500 [0.250, 0.750]"),
    ],
)
def test_a_metric_in_a_table(value: float | None, estimate: Any, text: str) -> None:
    assert report.format_metric(value, estimate) == text


def test_a_count_is_given_once_where_it_is_the_same() -> None:
    assert report.format_count({"before": {"n": 1200}, "after": {"n": 1200}}) == "1,200"
    assert report.format_count({"before": {"n": 3}, "after": {"n": 4}}) == "3 / 4"
    assert report.format_count({}) == ""


def test_long_texts_keep_the_end_of_the_prompt_and_the_beginning_of_the_answer() -> None:
    before = Sample("x" * 400 + "END", "BEGIN" + "y" * 700, 3, None, {"a": 0.125, "b": 1.0})
    after = Sample("x" * 400 + "END", "after\x1b[2J", 3, None, {})
    out = StringIO()
    report.print_samples([before], [after], Console(file=out, width=2000, force_terminal=False), limit=1)
    text = out.getvalue()
    assert f"… {'x' * 297}END" in text
    assert f"BEGIN{'y' * 595} …" in text
    assert "y" * 596 not in text
    assert "(a 0.12  b 1.00)" in text
    assert "after\\x1b[2J" in text


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draw the curves of ``tmp_path``; returns for each panel, in order, what it holds."""

    def draw() -> dict[str, Any]:
        found: dict[str, Any] = {}

        @contextmanager
        def watched(*args: Any, **kwargs: Any) -> Generator[list[Any]]:
            with chart(*args, **kwargs) as axes:
                yield axes
                for axis in axes:
                    if axis.get_visible():
                        found[axis.get_title()] = {
                            "bars": [bar.get_height() for bar in axis.patches],
                            "ticks": [tick.get_text() for tick in axis.get_xticklabels()] if axis.patches else [],
                            "errors": [path.tolist() for group in axis.collections for path in group.get_segments()],
                            "lines": [list(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) > 2],
                        }

        monkeypatch.setattr(report, "chart", watched)
        report.plot_curves(tmp_path)
        return found

    return draw


def test_nothing_logged_is_no_picture(drawn: Any, tmp_path: Path) -> None:
    assert drawn() == {}
    assert not (tmp_path / "curves.png").exists()


def test_bars_have_their_values_intervals_and_counts(drawn: Any, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    before, after = Measurement(samples(0.0, 1.0, 1.0), [1.0, 0.0]), Measurement(samples(1.0, 1.0, 4.0), [1.0, 1.0])
    tracker.log_evaluation(0, before, shown=0)
    tracker.log_evaluation(2, after, shown=0)
    write_json(tmp_path / "evaluation.json", compare(before, after))
    panels = drawn()
    panel = panels["evaluation/true_reward"]
    first, second = rate([0.0, 1.0, 1.0]), mean([1.0, 1.0, 4.0])
    assert panel["bars"] == pytest.approx([2 / 3, 2.0])
    assert [[y for _, y in path] for path in panel["errors"]] == [
        pytest.approx([first.low, first.high]),
        pytest.approx([second.low, second.high]),
    ]
    assert panel["ticks"][0] == f"before\n0.667 [{first.low:.3f}, {first.high:.3f}], n = 3"
    accuracy = panels["evaluation/preference_accuracy"]
    assert accuracy["bars"] == [0.5, 1.0]
    found = rate([1.0, 1.0])
    assert [y for _, y in accuracy["errors"][1]] == pytest.approx([found.low, found.high])
    win = compare(before, after)["win_rate"]
    assert panels["win rate by true_reward"]["bars"] == [win["mean"]]
    assert [y for _, y in panels["win rate by true_reward"]["errors"][0]] == pytest.approx([win["low"], win["high"]])


def test_curves_are_in_order_and_only_noisy_ones_are_smoothed(drawn: Any, tmp_path: Path) -> None:
    """The average over a twentieth of 40 steps: each step half of the way from the last one."""
    tracker = Tracker(tmp_path, enabled=True)
    for step in range(1, 41):
        odd = float(step % 2)
        steps = {"learning_rate": odd, "loss": odd, "other": odd}
        tracker.log(step, by_phase(train=steps, rollout={"scores/x": odd, "scores/x/std": odd}))
    tracker.log(40, {"heldout/loss": 1.0})
    panels = drawn()
    assert list(panels) == ["train/loss", "rollout/scores/x", "train/learning_rate"]
    values = [float(step % 2) for step in range(1, 41)]
    smooth = [1.0]
    for value in values[1:]:
        smooth.append((smooth[-1] + value) / 2)
    assert panels["train/loss"]["lines"] == [values, pytest.approx(smooth)]
    assert panels["train/learning_rate"]["lines"] == [values]


@pytest.mark.parametrize(("steps", "bars"), [((0, 5), 2), ((1, 5), 0), ((0, 3, 5), 0)])
def test_two_points_are_bars_only_where_the_first_is_the_start(
    steps: tuple[int, ...], bars: int, drawn: Any, tmp_path: Path
) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in steps:
        tracker.log(step, {"heldout/loss": 1.0 + step})
    assert len(drawn()["heldout/loss"]["bars"]) == bars
