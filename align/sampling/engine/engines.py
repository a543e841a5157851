"""The protocol of engines, the built-in one, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from align.model.policy import Policy
from align.sampling.engine.continuous import ContinuousEngine
from align.sampling.engine.vllm import VllmEngine
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.settings.sampling import SamplingConfig
from align.system.processes import Processes

__all__ = ["Engine", "LocalEngine", "open_engine"]


class Engine(Protocol):
    """Draws responses from the weights that the policy role of one policy had when they were loaded."""

    @property
    def name(self) -> str:
        """Its name in ``sampling.engine``."""
        ...

    def require(self, params: SamplingParams, *, logps: bool) -> None:
        """Raise `UserError` where it cannot draw by these settings, or cannot give log-probabilities with them."""
        ...

    def load(self) -> None:
        """Draw from the weights of now on; all processes call it.

        Raises:
            EngineError: It failed.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        n: int = 1,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Response]]:
        """Draw ``n`` responses to each prompt, with ids and log-probabilities; each process calls it for its own.

        What is drawn depends on ``seed``, the prompt's key (default: its index) and the response's number. ``between``
        is called now and then and may raise to stop.

        Raises:
            EngineError: It gave no usable responses.
        """
        ...


class LocalEngine:
    """The built-in decode loop (:class:`align.sampling.sampler.Sampler`), on the policy's own weights."""

    name = "local"

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def require(self, params: SamplingParams, *, logps: bool) -> None:
        """It can all of it."""

    def load(self) -> None:
        """It has the weights."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        n: int = 1,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Response]]:
        """See :class:`Engine`."""
        with self.policy.use("policy"):
            return Sampler(self.policy, params).generate(prompts, n=n, seed=seed, keys=keys, between=between)


@contextmanager
def open_engine(config: SamplingConfig, policy: Policy) -> Generator[Engine]:
    """Give the engine of the settings for a policy; at the end it leaves nothing on a server."""
    if config.engine == "local":
        yield LocalEngine(policy)
        return
    if config.engine == "transformers":
        yield ContinuousEngine(policy)
        return
    engine = VllmEngine(config, policy, Processes())
    try:
        yield engine
    finally:
        engine.close()
