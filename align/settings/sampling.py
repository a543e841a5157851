"""Settings of the engine that draws responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from align.errors import UserError
from align.settings.adapter import Adapter
from align.settings.sharding import ShardingName
from align.settings.type_checks import Positive, Settings
from align.system.network import check_address

__all__ = ["EngineName", "SamplingConfig", "require_drawable"]

EngineName = Literal["local", "transformers", "vllm"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Settings):
    """Who draws responses while a run trains, evaluates or collects candidates; how is set where they are drawn."""

    engine: EngineName = "local"
    """local (our loop), transformers (continuous batching), vllm (a server with the same base; docs/engine.md)."""
    url: str | None = None
    """Address of the server: http on this machine, https with a token elsewhere."""
    token_env: str | None = None
    """Environment variable that holds the server's token."""
    folder: str | None = None
    """Adapters are handed over in this folder, which the server must see too; null: the temporary one."""
    timeout: Positive = 600.0
    """Seconds for all responses to one prompt."""
    retries: Annotated[int, Ge(0)] = 5
    """Repetitions of a failed request."""

    def check(self) -> None:
        """A server has an address; what is for a server needs one."""
        if self.engine != "vllm":
            for name in ("url", "token_env", "folder", "timeout", "retries"):
                if getattr(self, name) != getattr(SamplingConfig, name):
                    raise UserError(
                        f"{name}={getattr(self, name)} has no effect on sampling.engine={self.engine}; take "
                        "sampling.engine=vllm, or leave it out."
                    )
            return
        if self.url is None:
            raise UserError("url is missing: give the address of the server, such as http://127.0.0.1:8000.")
        check_address("url", self.url, "sampling.token_env", self.token_env)
        if self.url.rstrip("/").endswith("/v1"):
            raise UserError(f"url={self.url}: leave /v1 out, health and version are asked for beside it.")


def require_drawable(sampling: SamplingConfig, adapter: Adapter | None, sharding: ShardingName) -> None:
    """Raise `UserError` where the engine cannot draw from the weights that are trained."""
    if sampling.engine == "transformers" and sharding != "none":
        raise UserError(
            f"sampling.engine=transformers draws on each process for itself, but with trainer.sharding={sharding} a "
            "forward pass needs all of them; take sampling.engine=local or vllm."
        )
    if sampling.engine != "vllm":
        return
    if adapter is None:
        raise UserError(
            f"sampling.engine={sampling.engine} is handed adapters while a run trains, but adapter=none trains the "
            "whole model; use an adapter, or sampling.engine=local."
        )
    if adapter.dora:
        raise UserError(f"sampling.engine={sampling.engine} has no DoRA; leave adapter.dora=true out, or draw locally.")
