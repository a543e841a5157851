"""The engine of transformers' continuous batching: a response that ends makes room for the next one at once.

It draws with the policy's own weights in this program. Measured in docs/engine.md beside the built-in loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from packaging.version import Version

from align.data.encoding import stop_ids
from align.errors import EngineError, UserError
from align.model.packing import PACKED, use_packed_attention
from align.sampling.decode_loop import make_cache
from align.sampling.params import Response, SamplingParams
from align.system.progress import progress

if TYPE_CHECKING:
    from align.model.policy import Policy

__all__ = ["ContinuousEngine"]

_CACHE = 32_768  # tokens of prompts and responses that are drawn together, as the built-in loop's
_OLDEST = "5.18"  # of transformers: older ones size the pages of the cache in another way
_STEP = 2_048  # tokens of a forward pass: its mask has a row for each of them and a column for each of the cache
_WAIT = 0.2  # seconds for a response before the caller may stop


class ContinuousEngine:
    """See :class:`align.sampling.engine.engines.Engine`; made by :func:`~align.sampling.engine.engines.open_engine`."""

    name = "transformers"

    def __init__(self, policy: Policy) -> None:
        """
        Raises:
            UserError: The model keeps something else than keys and values, so there is nothing to share out in pages;
                or transformers is too old.
        """
        if Version(transformers.__version__) < Version(_OLDEST):
            raise UserError(
                f"sampling.engine=transformers needs transformers {_OLDEST} or later, not {transformers.__version__}; "
                "install a later one, or take sampling.engine=local."
            )
        if make_cache(policy.model) is None or not hasattr(policy.model, "generate_batch"):
            raise UserError(
                f"sampling.engine=transformers cannot draw from {policy.name}, which has another cache than keys and "
                "values; take sampling.engine=local."
            )
        self.policy, self._stops = policy, sorted(stop_ids(policy.tokenizer))

    def require(self, params: SamplingParams, *, logps: bool) -> None:
        """See :class:`~align.sampling.engine.engines.Engine`."""
        params.require_drawn_by("transformers", logps=logps)

    def load(self) -> None:
        """It has the weights."""

    @torch.no_grad()
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
        """See :class:`~align.sampling.engine.engines.Engine`; what is drawn depends on all prompts of the call.

        Each response is a request of its own: those that transformers forks from one (``num_return_sequences``) all
        have its first token.
        """
        if not prompts:  # of a process without a share
            return []
        keys = range(len(prompts)) if keys is None else keys
        asked = {f"{p}.{k}": list(prompt) for p, prompt in enumerate(prompts) for k in range(n)}
        drawn: dict[str, Response] = {}
        random_seed = int(np.random.SeedSequence((seed, *keys)).generate_state(1)[0])
        with self._manager(params, list(map(len, asked.values())), random_seed) as manager:
            for name, prompt in asked.items():
                manager.add_request(prompt, request_id=name)
            manager.start()  # after all requests, so that equal calls draw them in the same batches
            with progress("drawing", len(asked), "response") as bar:
                while len(drawn) < len(asked):
                    between()
                    found = manager.get_result(timeout=_WAIT)
                    if found is not None:
                        drawn[found.request_id] = self._response(found, manager)
                        bar.update()
                    elif not manager.is_running():
                        raise _failed(manager)
        return [[drawn[f"{p}.{k}"] for k in range(n)] for p in range(len(prompts))]

    def _response(self, found: Any, manager: Any) -> Response:
        if found.error is not None:
            raise _failed(manager, found.error)
        ids = list(found.generated_tokens)
        return Response(ids, list(found.logprobs), finished=ids[-1] in self._stops)

    @contextmanager
    def _manager(self, params: SamplingParams, lengths: Sequence[int], seed: int) -> Generator[Any]:
        """Give a manager that has not been started, with room for these lengths of prompts."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        model: Any = self.policy.model
        warm = {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k or None}
        generation = GenerationConfig(
            max_new_tokens=params.max_new_tokens,
            do_sample=params.temperature > 0,
            eos_token_id=self._stops,
            pad_token_id=self.policy.pad_id,
            **(warm if params.temperature > 0 else {}),
        )
        batching = ContinuousBatchingConfig(max_batch_tokens=_STEP, return_logprobs=True, seed=seed)
        batching.auto_switch_to_flash = False  # it would fetch a kernel from the hub
        batching.drop_unsupported_processors = False
        blocks = [-(-(length + params.max_new_tokens) // batching.page_size) for length in lengths]
        batching.num_blocks = max(*blocks, min(sum(blocks), _CACHE // batching.page_size))
        devices = [self.policy.device] if self.policy.device.type == "cuda" else []
        with (
            self.policy.use("policy"),
            self.policy.roles.merged(),
            _own_attention(model),
            torch.random.fork_rng(devices),
        ):
            manager = model.init_continuous_batching(generation, batching)
            try:
                yield manager
            finally:
                manager.stop(block=True, hard_stop=True)
                manager.destroy()


@contextmanager
def _own_attention(model: Any) -> Generator[None]:
    """Let a model compute with PyTorch's attention, not with that of packed rows."""
    packed = model.config.get_text_config()._attn_implementation == PACKED
    if packed:
        use_packed_attention(model.config, on=False)
    try:
        yield
    finally:
        if packed:
            use_packed_attention(model.config)


def _failed(manager: Any, error: object = None) -> EngineError:
    reason = error or manager.background_thread_status.fatal_error or "it stopped"
    return EngineError(
        f"sampling.engine=transformers: continuous batching failed ({reason}); take sampling.engine=local."
    )
