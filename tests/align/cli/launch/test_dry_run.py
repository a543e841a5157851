from __future__ import annotations

from typing import Any

import pytest

from align.cli.launch.dry_run import Size, estimate
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig

SIZE = Size(total=1_000_000, trainable=10_000, layers=3, hidden=8, intermediate=20)


def _parts(
    *, copies: int = 2, adapter: Adapter | None = None, dtype: Any = "float32", **trainer: Any
) -> dict[str, float]:
    config = RunConfig(
        method="dpo",
        model=ModelConfig(name="a/b", dtype=dtype),
        adapter=adapter,
        data=DataConfig(train="a/b"),
        trainer=TrainerConfig(tokens_per_microbatch=100, **trainer),
        run_name="x",
    )
    parts = estimate(config, SIZE, copies=copies)
    return {name.partition(" ")[0]: amount for name, amount in parts.items()}


def test_adapters_share_one_base() -> None:
    parts = _parts(adapter=Adapter())
    assert parts["model"] == 4_000_000
    assert parts["adapters"] == 2 * 40_000
    assert parts["gradients"] == 40_000
    assert parts["optimizer"] == 80_000  # two moments in float32


def test_without_adapters_every_role_is_a_copy() -> None:
    parts = _parts(copies=3, dtype="bfloat16")
    assert parts["model"] == 3 * 4_000_000  # trained weights are float32
    assert parts["adapters"] == 0


@pytest.mark.parametrize(("optimizer", "state"), [("adamw_8bit", 20_000), ("rmsprop", 40_000), ("sgd", 0)])
def test_optimizers_differ_in_their_state(optimizer: str, state: int) -> None:
    assert _parts(optimizer=optimizer)["optimizer"] == state


def test_activations() -> None:
    # A layer keeps 10 * 8 + 4 * 20 = 160 numbers of a token; three layers, 100 tokens, 4 bytes, twice at the peak.
    assert _parts()["activations"] == 2 * 3 * 160 * 100 * 4
    assert _parts(precision="bfloat16")["activations"] == 2 * 3 * 160 * 100 * 5
    # With checkpointing one layer, and the 8 numbers between layers.
    assert _parts(gradient_checkpointing=True)["activations"] == 2 * (160 + 3 * 8) * 100 * 4
