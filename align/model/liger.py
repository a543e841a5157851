"""Liger's kernels for norms, rotary positions and gated MLPs, on a GPU where they are installed.

Hsu et al. 2024, arXiv 2410.10989: each is one pass over its tensors where PyTorch makes several.
"""

from __future__ import annotations

import sys
from functools import wraps
from types import FunctionType
from typing import Any

import torch
from torch import nn

from align.errors import first_line

__all__ = ["use_liger"]

_WITHOUT = {"cross_entropy": False, "fused_linear_cross_entropy": False}  # losses of their own
_TOLERANCE = 32.0  # units in the last place of the largest logit; a wrong kernel makes thousands


@torch.no_grad()
def use_liger(network: Any) -> str | None:
    """Let a model on a GPU compute with Liger's kernels; returns a sentence for the user.

    Nothing is changed where Liger is not installed, does not know the architecture, or gives other logits.
    """
    try:
        from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports]
            _apply_liger_kernel_to_instance,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError:
        return None
    ids = torch.arange(2, 34, device=network.device)[None] % network.get_input_embeddings().weight.shape[0]
    before = network(input_ids=ids, use_cache=False).logits.float()
    own = {module: module.__dict__.copy() for module in network.modules()}
    code = sys.modules[type(network).__module__]
    names = vars(code).copy()
    try:
        _apply_liger_kernel_to_instance(model=network, **_WITHOUT)
        _keep_for_other_devices(code, names)
        if all(module.__dict__.keys() == own[module].keys() for module in network.modules()):
            return None  # an architecture that it does not know
        difference = (network(input_ids=ids, use_cache=False).logits.float() - before).abs().max().item()
        if difference <= _TOLERANCE * torch.finfo(network.dtype).eps * max(1.0, before.abs().max().item()):
            return "kernels: Liger's"
        reason = f"logits differ by {difference:.1e}"
    except Exception as error:  # of kernels that are built here for the first time, in ways of their own
        reason = f"{type(error).__name__}: {first_line(error)}"
    vars(code).update(names)
    for module, was in own.items():
        _restore(module, was)
    return f"kernels: not Liger's ({reason})"


def _keep_for_other_devices(code: Any, names: dict[str, Any]) -> None:
    """Take back what was put into the module of the architecture, where models on a CPU find it too.

    Classes are not needed there: the modules of this model are changed already. Functions choose by device.
    """
    for name, plain in names.items():
        new = vars(code)[name]
        if new is plain:
            continue
        chooses = getattr(plain, "on_gpu", None) is new  # since an earlier model
        setattr(code, name, _by_device(plain, new) if isinstance(plain, FunctionType) and not chooses else plain)


def _by_device(plain: Any, on_gpu: Any) -> Any:
    @wraps(plain)
    def choose(first: torch.Tensor, *rest: Any, **settings: Any) -> Any:
        return (on_gpu if first.is_cuda else plain)(first, *rest, **settings)

    setattr(choose, "on_gpu", on_gpu)  # noqa: B010 — a function has no such attribute by its type
    return choose


def _restore(module: nn.Module, was: dict[str, Any]) -> None:
    module.__dict__.clear()
    module.__dict__.update(was)
