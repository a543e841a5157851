"""The refusals of `trainer.sharding`, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig


def config(sharding: Any, optimizer: Any = "adamw", **others: Any) -> RunConfig:
    given: dict[str, Any] = {"model": ModelConfig(name="world/base"), **others}
    trainer = TrainerConfig(sharding=sharding, optimizer=optimizer)
    return RunConfig(method="dpo", data=DataConfig(train="world"), run_name="run", trainer=trainer, **given)


def test_weights_that_are_not_quantised_can_be_sharded() -> None:
    assert config("full").trainer.sharding == "full"
    assert config("full", adapter=None).adapter is None
    with pytest.raises(UserError, match=r"trainer\.sharding=node cannot share out weights of model\.quantization=4bit"):
        config("node", model=ModelConfig(name="world/base", quantization="4bit"))


def test_an_optimiser_with_states_of_blocks_has_no_parts() -> None:
    assert config("full", optimizer="adamw_8bit").trainer.optimizer == "adamw_8bit"  # of adapters, which stay whole
    with pytest.raises(UserError, match=r"trainer\.optimizer=adamw_8bit cannot train all parameters where trainer\.sh"):
        config("full", adapter=None, optimizer="adamw_8bit")
