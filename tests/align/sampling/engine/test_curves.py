"""PPO learns as well from the responses of one engine as from those of another: true reward on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.evaluation.statistics import win_rate
from align.settings.sampling import SamplingConfig
from tests.align.sampling.engine.fake_vllm import FakeVllm
from tests.methods.test_learning import differences, run

ROLLOUTS = ("method=ppo", "reward=world", "method.beta=0.02", "trainer.steps=30", "evaluation.prompts=150")


@pytest.mark.slow
def test_ppo_learns_as_well_from_each_engine(
    serve: Callable[..., tuple[FakeVllm, SamplingConfig]], tmp_path: Path
) -> None:
    """Three seeds each; figures in docs/engine.md."""
    server, reached = serve(base="world/base", max_model_len=512)
    engines: dict[str, list[str]] = {
        "local": [],
        "transformers": ["sampling.engine=transformers"],
        "vllm": ["sampling.engine=vllm", f"sampling.url={reached.url}", "method.importance_cap=2"],
    }
    won: dict[str, Any] = {}
    for engine, words in engines.items():
        gains = [differences(run(tmp_path / f"{engine}{seed}", *ROLLOUTS, f"seed={seed}", *words)) for seed in range(3)]
        won[engine] = win_rate(np.array(gains))
        print(engine, won[engine], [round(float(np.mean(gain)), 3) for gain in gains])
        assert won[engine].low > 0.5
    for engine in ("transformers", "vllm"):
        assert won[engine].low < won["local"].high
        assert won["local"].low < won[engine].high
    assert len(set(server.loaded)) == len(server.loaded) >= 3 * 15  # a new name for each version of the adapter
    assert not server.adapters
