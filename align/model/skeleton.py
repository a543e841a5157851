"""A model without its weights: its parameters counted, its adapter in place, to ask before anything is read."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from align.model.adapters import add_lora, lora_config
from align.model.loading import require_loadable
from align.model.packing import can_pack, use_packed_attention
from align.system.processes import own_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.settings.adapter import Adapter
    from align.settings.config import ModelConfig

__all__ = ["Size", "Skeleton", "skeleton"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of parameters."""

    total: int
    """Of the model without adapters."""
    trainable: int
    """That one role trains."""


@dataclass(frozen=True)
class Skeleton:
    """A causal language model on the meta device, with the policy's adapter where there is one."""

    network: Any
    size: Size
    adapted: tuple[str, ...] = ()
    """Names of the layers that have an adapter."""


def skeleton(
    model: ModelConfig, adapter: Adapter | None, architecture: PretrainedConfig, *, layers: int | None = None
) -> Skeleton:
    """Build a model as :func:`align.model.loading.load` would, without weights; ``layers``: only that many.

    Raises:
        UserError: Settings contradict each other, or the adapter has no place in this architecture.
    """
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    start = require_loadable(model, adapter)
    architecture = copy.deepcopy(architecture)  # which says how the model made of it attends, too
    if layers is not None:
        architecture.get_text_config().num_hidden_layers = layers
    frozen = adapter is not None and model.dtype == "bfloat16"
    settings: dict[str, Any] = {"dtype": torch.bfloat16 if frozen else torch.float32}
    if model.attention in ("sdpa", "eager"):  # the others look for a package
        settings["attn_implementation"] = model.attention
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(
            architecture, trust_remote_code=model.trust_remote_code, **settings
        )
    if can_pack(network, own_device()):
        use_packed_attention(network.config)
    total = sum(p.numel() for p in network.parameters())
    if adapter is None:
        return Skeleton(network, Size(total=total, trainable=total))
    if start is None:
        lora, place = lora_config(network, adapter), f"adapter.targets={adapter.targets}"
    else:
        lora, place = cast("LoraConfig", LoraConfig.from_pretrained(str(start))), f"model.start={model.start}"
        lora.base_model_name_or_path, lora.inference_mode = None, False
    with torch.device("meta"):
        adapted = add_lora(network, lora, place)
    trainable = sum(p.numel() for name, p in adapted.named_parameters() if ".lora_" in name)
    tuner: Any = adapted.base_model
    return Skeleton(network, Size(total=total, trainable=trainable), tuple(tuner.targeted_module_names))
