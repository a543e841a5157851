"""LoRA on a linear layer as one function of autograd: ``y = xWᵀ + b + s·(xAᵀ)Bᵀ`` (Hu et al. 2021, eq. 3).

PEFT's own layer casts, scales and adds the update in passes of their own, and keeps what those need for their
gradients. Here the update is added by the matrix product that makes it; the gradients of A and B arrive in the type
that they are trained in::

    ∂L/∂x = g W + s·(g B) A        ∂L/∂B = s·gᵀ(x Aᵀ)        ∂L/∂A = s·(g B)ᵀ x

It computes in the type in which PEFT's layer would: that of the adapter, or of autocast. Where that is not the type of
the base (a bfloat16 base in a float32 run), and with DoRA, active dropout, merged weights or biases of adapters, PEFT's
layer does the work.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLoraLinear
from torch import Tensor, nn
from typing_extensions import override

from align.model.devices import autocast_dtype

__all__ = ["LoraLinear"]


class _Update(torch.autograd.Function):
    """See the module; x (N, in), W (out, in), A (r, in) and B (out, r) in the type of W."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        low_a, low_b = a.to(weight.dtype), b.to(weight.dtype)
        inner = x @ low_a.T
        out = torch.nn.functional.linear(x, weight, bias)
        out.addmm_(inner, low_b.T, alpha=scale)
        ctx.save_for_backward(x, inner, weight, low_a, low_b)
        ctx.scale, ctx.trained = scale, (a.dtype, b.dtype)
        return out

    @staticmethod
    @override
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inner, weight, low_a, low_b = ctx.saved_tensors
        through = (grad @ low_b).mul_(ctx.scale)
        needs_x, _, _, needs_a, needs_b, _ = ctx.needs_input_grad
        x_grad = (grad @ weight).addmm_(through, low_a) if needs_x else None
        a_grad = (through.T @ x).to(ctx.trained[0]) if needs_a else None
        b_grad = (grad.T @ inner).mul_(ctx.scale).to(ctx.trained[1]) if needs_b else None
        return x_grad, None, None, a_grad, b_grad, None


class LoraLinear(PeftLoraLinear):
    """PEFT's LoRA layer, which computes plain LoRA in one function."""

    @override
    def _get_in_out_features(self, module: nn.Linear) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the layer's own: PEFT takes a weight that ``sharding=node`` shares out for one computed in parts."""
        return module.in_features, module.out_features

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.get_base_layer()
        if args or kwargs:
            return super().forward(x, *args, **kwargs)
        if self.disable_adapters and not self.merged:
            return base(x)
        if not self._is_plain(x, base):
            return super().forward(x)
        (name,) = self.active_adapters
        a, b, scale = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        rows: Any = _Update.apply(x.reshape(-1, x.shape[-1]), base.weight, base.bias, a, b, scale)
        return rows.view(*x.shape[:-1], -1)

    def _is_plain(self, x: Tensor, base: Any) -> bool:
        if self.disable_adapters or self.merged or type(base) is not nn.Linear or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name] or self.fan_in_fan_out:
            return False
        computed = autocast_dtype(x.device) or self.lora_A[name].weight.dtype
        dropout = self.lora_dropout[name]
        return x.dtype == base.weight.dtype == computed and not (dropout.training and getattr(dropout, "p", 0))
