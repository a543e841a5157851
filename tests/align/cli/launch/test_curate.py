"""The rows that a run trains on: chosen, or mixed at rates, of those that are not held out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align.cli.launch.assemble import load_data
from align.cli.launch.resume import command_inputs
from align.cli.main import main
from align.data import Preferences
from align.errors import UserError
from align.settings.config import DataConfig
from tests.align.cli.launch.test_each_setting import config


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[str, str]:
    """Two files, of 30 and of 6 questions; the answers of the first get longer."""
    for name, count in (("a", 30), ("b", 6)):
        rows = [
            {"prompt": f"{name} {i}?", "chosen": "so " * (i + 1), "rejected": "no", "source": f"{name}{i % 2}"}
            for i in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")


def load(seed: int = 5, **data: Any) -> tuple[Preferences, Preferences | None]:
    return load_data(config(data=DataConfig(**{"heldout_size": 0, **data}), seed=seed))


def questions(data: Preferences | None) -> list[str]:
    assert data is not None
    return [row["prompt"][0]["content"] for row in data]


def test_a_mixture_has_its_rates(tasks: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes 30 and 6 up to 10: rates 10/16 and 6/16 of 16 rows; no row of them twice."""
    train, _ = load(train=tasks, rates="proportional", cap=10)
    assert Counter(question[0] for question in questions(train)) == {"a": 10, "b": 6}
    assert len(set(questions(train))) == 16
    said = capsys.readouterr().out
    assert "16 rows are mixed at proportional rates" in said
    assert "a.jsonl 62.5% (30 rows)" in said


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rates": "proportional"}, {"a": 30, "b": 6}),
        ({"rates": "equal"}, {"a": 18, "b": 18}),
        ({"rates": "temperature", "temperature": 2.0}, {"a": 25, "b": 11}),  # √30 : √6 = 2.236 : 1, of 36
    ],
)
def test_rates_without_a_cap(settings: dict[str, Any], expected: dict[str, int], tasks: tuple[str, str]) -> None:
    """An epoch is as long as the sources; a small one comes again once all of it has come."""
    train, _ = load(train=tasks, **settings)
    assert Counter(question[0] for question in questions(train)) == expected


def test_a_mixture_depends_on_the_seed_alone_and_holds_prompts_out(tasks: tuple[str, str]) -> None:
    given: dict[str, Any] = {"train": tasks, "rates": "equal", "heldout_size": 4}
    train, heldout = load(**given)
    again, _ = load(**given)
    other, _ = load(6, **given)
    assert train.fingerprint == again.fingerprint != other.fingerprint
    assert len(questions(heldout)) == 4
    assert not set(questions(heldout)) & set(questions(train))
    assert len(train) == 32


def test_a_source_all_of_which_is_held_out_is_named(tmp_path: Path, tasks: tuple[str, str]) -> None:
    (tmp_path / "one.jsonl").write_text('{"prompt": "a 0?", "chosen": "x", "rejected": "y"}\n')
    seed = next(seed for seed in range(99) if "a 0?" in questions(load(seed, train=tasks, heldout_size=12)[1]))
    with pytest.raises(UserError, match=r"data\.rates: .*one\.jsonl has no rows to train on; leave it out"):
        load(seed, train=(*tasks, str(tmp_path / "one.jsonl")), rates="equal", heldout_size=12)


def test_few_good_rows_are_selected(tasks: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two clusters at most for four rows; the longest answers of each source's share, and none that is held out."""
    train, heldout = load(train=tasks[0], select=4, select_per_source=2, heldout_size=10)
    assert len(train) == 4
    assert Counter(row["source"] for row in train) == {"a0": 2, "a1": 2}
    assert not set(questions(heldout)) & set(questions(train))
    said = capsys.readouterr().out
    assert "4 of 20 rows from" in said
    assert "mean length" in said


def test_a_few_prompts_are_drawn_with_all_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ten prompts with two rows each, four are eight rows; another seed draws others, more than all are all."""
    rows = [{"prompt": f"{i % 10}?", "chosen": "yes", "rejected": f"no {i}"} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = str(tmp_path / "a.jsonl")
    train, _ = load(train=file, max_prompts=4)
    assert sorted(Counter(questions(train)).values()) == [2, 2, 2, 2]
    assert (
        questions(train)
        == questions(load(train=file, max_prompts=4)[0])
        != questions(load(6, train=file, max_prompts=4)[0])
    )
    assert "8 rows of 4 of the 10 prompts are kept" in capsys.readouterr().out
    assert len(load(train=file, max_prompts=11)[0]) == 20
    train, heldout = load(train=file, max_prompts=4, heldout_size=5)
    assert len(set(questions(train))) == 4
    assert len(set(questions(heldout))) == 5
    assert not set(questions(heldout)) & set(questions(train))


def test_a_few_prompts_are_drawn_of_rows_that_are_selected_or_mixed(tasks: tuple[str, str]) -> None:
    train, _ = load(train=tasks[0], select=10, max_prompts=3)
    assert set(questions(train)) < set(questions(load(train=tasks[0], select=10)[0]))
    assert len(train) == 3
    mixed, _ = load(train=tasks, rates="equal", max_prompts=8)
    assert len(set(questions(mixed))) == 8


def test_a_source_keeps_its_rate_of_a_few_prompts(tmp_path: Path) -> None:
    """Half of 20 prompts are of the small source, which has four: 14 prompts, and half of the rows are of each."""
    for name, n in (("big", 300), ("small", 4)):
        rows = [{"prompt": f"{name} {i}?", "chosen": "yes", "rejected": "no"} for i in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("big", "small")]
    mixed, _ = load(train=files, rates="equal", max_prompts=20)
    assert Counter(question.split()[0] for question in questions(mixed)) == {"big": 7, "small": 7}
    assert len({question for question in questions(mixed) if "small" in question}) == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"select": 31}, r"data\.select=31 of 30 rows; give a number from 1 to 30"),
        ({"select": 5, "select_per_source": 2}, r"lower data\.select=5 or raise data\.select_per_source=2\."),
        ({"select": 5, "select_by": "score"}, r"30 of 30 rows have no score .*give data\.select_by="),
        ({"select": 5, "select_by": "lenth"}, "lenth"),
    ],
)
def test_a_selection_that_cannot_be_made_names_the_settings(
    settings: dict[str, Any], said: str, tasks: tuple[str, str]
) -> None:
    with pytest.raises(UserError, match=said):
        load(train=tasks[0], **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cap": 3}, r"cap=3 has no effect without data\.rates"),
        ({"temperature": 2.0}, r"temperature=2\.0 has no effect without data\.rates"),
        ({"select_by": "score"}, r"select_by=score has no effect without data\.select"),
        ({"select_per_source": 3}, r"select_per_source=3 has no effect without data\.select"),
        ({"rates": "equal"}, r"rates mixes several sources, each once: name them as data\.train=\[a\.jsonl,b\.jsonl\]"),
        ({"rates": "equal", "train": ("a/b", "a/b")}, "rates mixes several sources, each once"),
        ({"rates": "equal", "train": ("a/b", "c/d"), "cap": 3}, r"cap=3 has no effect on data\.rates=equal"),
        ({"rates": "equal", "train": ("a/b", "c/d"), "temperature": 2.0}, "has an effect on data.rates=temperature"),
        ({"rates": "equal", "train": ("a/b", "c/d"), "select": 3}, r"select and data\.rates both choose the rows"),
        ({"rates": "temperature", "temperature": 0.5}, "temperature must be at least 1"),
        ({"rates": "even"}, "rates must be proportional, temperature, equal or null"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DataConfig(**{"train": "a/b", **settings})


def test_they_are_part_of_what_a_command_asks_for() -> None:
    from align.cli.launch.run import Run, Scorers
    from methods import SFT

    def inputs(**data: Any) -> dict[str, Any]:
        run = Run(config(method="sft", data=DataConfig(**{"train": ("a/b", "c/d"), **data})), SFT())
        return command_inputs(run, Scorers((), None))["data"]

    assert inputs(rates="equal") != inputs(rates="proportional") != inputs(rates="proportional", cap=3) != inputs()
    assert inputs() != inputs(max_prompts=3) != inputs(max_prompts=4)
    assert inputs(select=3) != inputs(select=4) != inputs(select=4, select_by="score") != inputs()


def test_a_run_on_a_mixture_is_resumed(
    tiny_model: Path,
    tasks: tuple[str, str],
    configs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        *("recipe=mtl", f"model={tiny_model}", f"data.train=[{','.join(tasks)}]", "data.cap=4", "run_name=m"),
        *("adapter.r=2", "trainer.steps=2", "trainer.batch_size=4", "trainer.max_length=128", "evaluation.prompts=0"),
    ]
    assert main(words, configs) == 0
    written = (tmp_path / "runs" / "m" / "1-sft" / "config.yaml").read_text()
    assert "rates: proportional" in written
    assert "cap: 4" in written
    capsys.readouterr()
    assert main([*words, "if_exists=resume"], configs) == 0
    assert "This run is finished" in capsys.readouterr().out
    assert main([*words[:3], "data.cap=5", *words[4:], "if_exists=resume"], configs) == 2
    assert "data.cap is 4 in the run and 5 now" in capsys.readouterr().err
