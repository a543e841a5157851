from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.cli.launch.assemble import try_scorers
from align.cli.launch.run import Run, Scorers
from align.data import Preferences
from align.doctor.patient import Patient
from align.model.loading import load_architecture, load_tokenizer
from align.model.policy import Policy
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig
from align.training.feed import tokenize_for
from methods import DPO

Make = Callable[..., Patient]


class Constant:
    """Scores every response alike."""

    name = "constant"

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def score(self, prompts: Any, responses: Any, **_: Any) -> list[list[float]]:
        return [[self.value for _ in row] for row, _ in zip(responses, prompts, strict=True)]


@pytest.fixture
def make(tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path) -> Make:
    """Makes a patient of the tiny model and forty pairs; settings by section, parts by name."""

    def patient(
        *,
        method: Any = None,
        adapter: Adapter | None = Adapter(r=4),
        rows: list[dict[str, Any]] | None = None,
        scorer: Any = None,
        parts: dict[str, Callable[[], Any]] | None = None,
        model: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Patient:
        config = RunConfig(
            method="x",
            model=ModelConfig(**{"name": str(tiny_model), **(model or {})}),
            adapter=adapter,
            data=DataConfig(**{"train": "world", **(data or {})}),
            trainer=TrainerConfig(**{"max_length": 200, "batch_size": 4, **(trainer or {})}),
            evaluation=EvaluationConfig(**{"max_new_tokens": 48, **(evaluation or {})}),
            **{"run_name": "x", "output_root": str(tmp_path), **settings},
        )
        method = method or DPO()
        train = Preferences.from_rows(pair_rows if rows is None else rows)
        held = Preferences.from_rows([{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}])

        def scores() -> list[str]:
            scorers = Scorers((scorer or Constant(),), None)
            try_scorers(Run(config, method), scorers, made.train, made.heldout)
            return [one.name for one in scorers.evaluation]

        made = Patient(
            config,
            method,
            {
                "architecture": lambda: load_architecture(config.model),
                "data": lambda: (train, held),
                "scores": scores,
                "tokenizer": lambda: load_tokenizer(config.model),
                "examples": lambda: tokenize_for(method, made.train, made.tokenizer, config.trainer.max_length),
                "policy": lambda: Policy.load(config.model, adapter=adapter, tokenizer=made.tokenizer),
                "reward": lambda: None,
                **(parts or {}),
            },
        )
        return made

    return patient


def with_parts(patient: Patient, **values: Any) -> Patient:
    """Put finished parts into a patient."""
    for name, value in values.items():
        patient._made[name] = value  # pyright: ignore[reportPrivateUsage]
    return patient


def with_sample(patient: Patient, **changes: Any) -> Patient:
    """Change every example that is looked at."""
    patient.__dict__["sample"] = [dataclasses.replace(example, **changes) for example in patient.sample]
    return patient
