from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from align.cli.launch import dry_run
from align.cli.launch.run import Run, Scorers
from align.model.skeleton import Size, Skeleton
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig
from align.training.memory import Memory
from methods import DPO, RFT


@pytest.mark.parametrize(("sources", "candidates"), [((), 3), (("a", "b"), 9)])
def test_how_many_candidates_would_be_drawn(
    sources: tuple[str, ...], candidates: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of each model that draws."""
    config = RunConfig(
        method="rft",
        model=ModelConfig(name="a/b"),
        data=DataConfig(train="a/b"),
        run_name="x",
        output_root="out",
        stage="sample",
        reward={"scorer": "http", "api_key": "word"},
    )
    examples = type("Examples", (), {"__len__": lambda _: 1200, "report": SimpleNamespace(summary=lambda: "read")})()
    for name, value in {
        "load_data": (None, None),
        "try_scorers": None,
        "read_tokenizer": (None, []),
        "prompts_to_answer": examples,
        "skeleton": Skeleton(None, Size(total=8, trainable=2)),
    }.items():
        monkeypatch.setattr(dry_run, name, lambda *_, value=value: value)
    memory = Memory(kept={"model": 3 * 2**30}, passing={"drawing candidates": 2**20})
    monkeypatch.setattr(dry_run, "estimate", lambda *_: memory)
    dry_run.dry_run(Run(config, RFT(samples=3, sources=sources)), Scorers((), None), None)  # pyright: ignore[reportArgumentType]
    said = capsys.readouterr().out
    assert f"1,200 prompts, {candidates} candidates for each\n" in said
    assert "Parameters: 2 trained of 8 (25.00%)\n" in said
    assert "Memory of each process, about 3.0 GiB:\n" in said
    assert "there is for each process\n" in said
    assert "Dry run: nothing was trained; the run folder would be out/x.\n" in said
    assert "word" not in said


def test_what_a_run_is_warned_of_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it trains, and what the method doubts."""
    config = RunConfig(
        method="dpo", model=ModelConfig(name="a/b"), data=DataConfig(train="a/b"), trainer=TrainerConfig(), run_name="x"
    )
    examples = type("Examples", (), {"__len__": lambda _: 20, "report": SimpleNamespace(summary=lambda: "read")})()
    told: list[Any] = []
    for name, value in {
        "load_data": ("train", "heldout"),
        "try_scorers": None,
        "read_tokenizer": ("tokenizer", []),
        "tokenize_data": (examples, None),
        "skeleton": Skeleton(None, Size(total=8, trainable=2)),
        "estimate": Memory(kept={}, passing={"a step": 1}),
        "advice": "as it is",
    }.items():
        monkeypatch.setattr(dry_run, name, lambda *_, value=value: value)
    monkeypatch.setattr(dry_run, "warn_of", lambda *words: told.append(words))
    run = Run(config, DPO(sync_steps=100))
    dry_run.dry_run(run, Scorers((), None), None)  # pyright: ignore[reportArgumentType]
    assert told == [(run, ("train", "heldout"), "tokenizer", examples)]
    said = capsys.readouterr().out
    assert "steps of 16 prompts" in said
    assert "Warning: the reference moves after every 100 steps and the run has 2" in said
