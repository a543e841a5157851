from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.cli.launch.assemble import Run, load_data, read_tokenizer, tokenize_data
from align.cli.launch.free_checks import warn_of
from align.errors import UserError
from align.method.base import Method
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig
from methods import GSPO, SFT


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"batch_size": 1}, ""),
        ({"steps": 1}, ""),
        ({"warmup": 90, "steps": 10}, "Warning: plan: trainer.warmup=90 steps, but the run has 10"),
        ({"batch_size": 8}, "Warning: number of steps: 15 examples give 6 steps of 8, too few to learn much: raise"),
    ],
    ids=["good", "typed", "wrong", "few"],
)
def test_the_free_checks_warn_before_training(
    trainer: dict[str, int], said: str, tiny_model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn(SFT(), TrainerConfig(max_length=128, **trainer), tiny_model, pairs, capsys)  # pyright: ignore[reportArgumentType]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("Warning") == bool(said)


def warn(method: Method, trainer: TrainerConfig, model: Path, pairs: Path, capsys: Any) -> None:
    data = DataConfig(train=str(pairs), heldout_size=0, max_rejected=0.1)
    config = RunConfig(method="x", model=ModelConfig(name=str(model)), data=data, trainer=trainer, run_name="x")
    run = Run(config, method)
    loaded, (tokenizer, _) = load_data(config), read_tokenizer(config)
    examples, _ = tokenize_data(run, loaded[0], None, tokenizer)
    capsys.readouterr()
    warn_of(run, loaded, tokenizer, examples)


def test_what_ends_the_run_is_no_warning_as_well(
    tiny_model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch of two prompts in four minibatches: the error is said once, before weights are loaded."""
    with pytest.raises(UserError, match=r"trainer\.batch_size=2 prompts cannot be cut into 4 minibatches"):
        warn(GSPO(max_new_tokens=8), TrainerConfig(max_length=128, batch_size=2), tiny_model, pairs, capsys)
    assert capsys.readouterr() == ("", "")
