"""The refusals of `trainer.sharding`, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig


def config(sharding: Any, **others: Any) -> RunConfig:
    given = {"model": ModelConfig(name="world/base"), **others}
    trainer = TrainerConfig(sharding=sharding)
    return RunConfig(method="dpo", data=DataConfig(train="world"), run_name="run", trainer=trainer, **given)


def test_a_frozen_base_that_is_not_quantised_can_be_sharded() -> None:
    assert config("full").trainer.sharding == "full"
    assert config("none", adapter=None).adapter is None
    with pytest.raises(UserError, match=r"trainer\.sharding=full shares out a frozen base, but adapter=none"):
        config("full", adapter=None)
    with pytest.raises(UserError, match=r"trainer\.sharding=node cannot share out weights of model\.quantization=4bit"):
        config("node", model=ModelConfig(name="world/base", quantization="4bit"))
