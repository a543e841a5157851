from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.launch.assemble import Run, load_data, read_tokenizer, tokenize_data
from align.cli.launch.execute import _warn_of  # pyright: ignore[reportPrivateUsage]
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig
from methods import SFT


@pytest.mark.parametrize(
    ("trainer", "said"),
    [({}, ""), ({"warmup": 90, "steps": 10}, "Warning: plan: trainer.warmup=90 steps, but the run has 10")],
    ids=["good", "wrong"],
)
def test_the_free_checks_warn_before_training(
    trainer: dict[str, float], said: str, tiny_model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(
        method="x",
        model=ModelConfig(name=str(tiny_model)),
        data=DataConfig(train=str(pairs), heldout_size=0, max_rejected=0.1),
        trainer=TrainerConfig(max_length=128, **trainer),  # pyright: ignore[reportArgumentType]
        run_name="x",
    )
    run = Run(config, SFT())
    data, (tokenizer, _) = load_data(config), read_tokenizer(config)
    examples, _ = tokenize_data(run, data[0], None, tokenizer)
    capsys.readouterr()
    _warn_of(run, data, tokenizer, examples)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("Warning") == bool(said)
