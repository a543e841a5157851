"""The engine of a vLLM server: it holds the base, and is handed the adapter of the policy before each roll-out.

Each version of the adapter has a name of its own: a server that loads one in place reads it from the disk again at each
request (vLLM issue 41482), and finds earlier prompts in its cache by the adapter's name (issue 42125).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch

from align.data.encoding import encode_prompt, stop_ids
from align.errors import EngineError, UserError
from align.model.batch import Batch
from align.model.loading import known_ids
from align.model.roles import SharedBase
from align.sampling.engine.vllm_server import Asked, VllmServer
from align.sampling.params import Response, SamplingParams
from align.system.progress import progress

if TYPE_CHECKING:
    from align.model.policy import Policy
    from align.settings.sampling import SamplingConfig
    from align.system.processes import Processes

__all__ = ["VllmEngine"]

_FAR = 0.5
"""Mean difference of log-probabilities per token, in nats, from which on the server's base must be another model."""
_ADAPTED = 0.05
"""Mean difference per token from which on the policy can be told from its base, also in bfloat16."""
_COMPARED = 16  # tokens by which the two are compared


class VllmEngine:
    """See :class:`align.sampling.engine.engines.Engine`; made by :func:`~align.sampling.engine.engines.open_engine`."""

    name = "vllm"

    def __init__(self, config: SamplingConfig, policy: Policy, processes: Processes) -> None:
        """
        Args:
            config: Address and bounds.
            policy: Its policy role is an adapter.
            processes: The first one hands the adapters over.

        Raises:
            UserError: The adapter has what vLLM does not read.
        """
        self.policy, self.processes, self.server = policy, processes, VllmServer(config)
        _require_plain(policy)
        self.version = 0
        """Of the adapter that the server has, counted from 1."""
        self._run = f"align-{uuid4().hex[:12]}"  # a server may serve several runs, and this one again after a restart
        self._adapter = ""
        self._given: list[str] = []
        """Adapters that the server may have."""
        self._stops, self._known = stop_ids(policy.tokenizer), frozenset(known_ids(policy.tokenizer))

    def require(self, params: SamplingParams, *, logps: bool) -> None:
        """See :class:`~align.sampling.engine.engines.Engine`."""
        params.require_drawn_by("vllm", logps=logps)

    def load(self) -> None:
        """Hand the adapter over; the first time the two models are compared too."""
        self.version += 1
        (self._adapter, *_) = self.processes.together(lambda: self._hand_over() if self.processes.is_first else "")

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
        """See :class:`~align.sampling.engine.engines.Engine`; equal seeds draw alike as far as vLLM's batches do."""
        assert self._adapter, "load comes first"
        keys = range(len(prompts)) if keys is None else keys
        asked = [Asked(prompt, _seed_of(seed, key)) for prompt, key in zip(prompts, keys, strict=True)]
        with progress("drawing", len(asked), "prompt") as bar:
            return self.server.complete(
                self._adapter,
                asked,
                params,
                n=n,
                stops=self._stops,
                known=self._known,
                between=between,
                answered=bar.update,
            )

    def close(self) -> None:
        """Take the adapters off the server, if it still answers, and off the disk."""
        if self._given:
            server = VllmServer(replace(self.server.config, retries=0))
            with suppress(EngineError):
                for name in self._given:
                    server.unload_adapter(name)
            shutil.rmtree(self._root, ignore_errors=True)

    # Versions

    @cached_property
    def _root(self) -> Path:
        folder = self.server.config.folder
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix=f"{self._run}-", dir=folder)).resolve()
        if folder is not None:
            root.chmod(0o755)  # the server may be another user's
        return root

    def _hand_over(self) -> str:
        """On the first process: write the adapter, let the server read it, take the one before away."""
        name, before = f"{self._run}-{self.version}", self._adapter
        folder = self._root / name
        self.policy.roles.save("policy", folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors keeps them to this user
        self._given.append(name)
        self.server.load_adapter(name, folder)
        self._compare(name)
        if before:
            self.server.unload_adapter(before)
            self._given.remove(before)
            shutil.rmtree(self._root / before)
            self.server.reset_prefix_cache()
        return name

    @torch.no_grad()
    def _compare(self, name: str) -> None:
        """Look whether the server draws from the policy, by the log-probabilities of a few tokens.

        Raises:
            EngineError: It draws from another model, or from the base without the adapter.
        """
        prompt, params = encode_prompt(self.policy.tokenizer, "Hello"), SamplingParams(max_new_tokens=_COMPARED)
        ((drawn,),) = self.server.complete(name, [Asked(prompt, 0)], params, n=1, stops=self._stops, known=self._known)
        batch = Batch(prompt_ids=(prompt,), response_ids=((drawn.ids,),), rows=(0,))
        roles = self.policy.roles
        assert isinstance(roles, SharedBase)
        with self.policy.use("policy"):
            ours = self.policy.logprobs(batch).logp_PKT.flatten().numpy(force=True)
            with roles.bare():
                bare = self.policy.logprobs(batch).logp_PKT.flatten().numpy(force=True)
        difference, from_base, adapted = (
            float(np.abs(a - b).mean()) for a, b in ((ours, drawn.logps), (bare, drawn.logps), (ours, bare))
        )
        if adapted > _ADAPTED and from_base < difference / 2:
            raise EngineError(
                f"{self.server.url} draws from its base as if {name} were not there: log-probabilities differ by "
                f"{from_base:.2g} nats per token from the base's, and by {difference:.2g} from the policy's; look at "
                "its log."
            )
        if not difference < _FAR:
            raise EngineError(
                f"{self.server.url} serves another model than {self.policy.name}: log-probabilities differ by "
                f"{difference:.2g} nats per token; start it with the model of model.name."
            )


def _require_plain(policy: Policy) -> None:
    """Refuse what vLLM does not read in an adapter, or reads as if it were not there."""
    if not isinstance(policy.roles, SharedBase):
        raise UserError(
            "sampling.engine=vllm is handed adapters, but this policy is a whole model; load it with an adapter, or "
            "take sampling.engine=local."
        )
    config: Mapping[str, Any] = vars(policy.roles.peft_model.peft_config["policy"])
    plain = {
        **{"use_dora": False, "bias": "none", "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}},
        **{"target_parameters": None},
    }
    for name, value in plain.items():
        if config.get(name, value) not in (value, None):
            raise UserError(
                f"sampling.engine=vllm does not read {name}={config[name]} of the adapter; begin from one without, or "
                "take sampling.engine=local."
            )


def _seed_of(seed: int, key: int) -> int:
    """The seed of a prompt's first response; the others have the numbers after it, so that of two prompts lie apart."""
    return int(np.random.SeedSequence((seed, key)).generate_state(1, np.uint64)[0] >> 2)
