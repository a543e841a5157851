"""A running server with the base of the tiny policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from align.settings.sampling import SamplingConfig
from tests.align.sampling.engine.fake_vllm import FakeVllm


@pytest.fixture
def serve(tiny_model: Path) -> Iterator[Callable[..., tuple[FakeVllm, SamplingConfig]]]:
    """``serve(version="0.31.0")``: a server, and the settings to reach it."""
    with ExitStack() as stack:

        def start(**settings: Any) -> tuple[FakeVllm, SamplingConfig]:
            server = FakeVllm(**{"base": str(tiny_model), "max_model_len": 256, **settings})
            url = stack.enter_context(server.running())
            return server, SamplingConfig(engine="vllm", url=url, timeout=20.0, retries=0)

        yield start
