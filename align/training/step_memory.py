"""The bytes that live at once in a step, counted on tensors without content.

A step is run on them (`FakeTensorMode`) with one and with two layers of the model, and the bytes that live at once are
counted: each further layer adds as much as the second. So the count knows the architecture, the attention, the adapter,
the output head, autocast and gradient checkpointing, and needs neither memory nor a device.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from typing_extensions import override

from align.model.architecture import checkpoint_layers
from align.model.forward import Forward
from align.model.logprobs import HeadTransform, token_logprobs
from align.model.roles import SCALAR_ROLES
from align.model.skeleton import skeleton
from align.model.tree_layout import Rows
from align.system.processes import Processes, own_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.method.base import Method
    from align.settings.config import RunConfig

__all__ = ["LiveBytes", "step_bytes"]


def step_bytes(
    config: RunConfig, method: Method, architecture: PretrainedConfig, rows: Rows, response_tokens: int
) -> float:
    """Bytes that live at the peak of a forward and backward pass, weights and their gradients apart."""
    depth = int(architecture.get_text_config().num_hidden_layers)
    tried = [depth] if depth < 3 else [1, 2]
    heads = {role in SCALAR_ROLES for role in method.trains}

    def count(layers: int) -> float:
        part = skeleton(config.model, config.adapter, architecture, layers=layers).network
        if config.trainer.gradient_checkpointing:
            checkpoint_layers(part)
        precision = config.trainer.precision
        return max(_count(part, rows, response_tokens, scalar, method.dropout, precision) for scalar in heads)

    first, *more = map(count, tried)
    return first + sum((second - first) * (depth - 1) for second in more)


def _count(network: Any, rows: Rows, response_tokens: int, scalar: bool, dropout: bool, precision: str) -> float:
    from torch._subclasses.fake_tensor import FakeTensorMode

    processes, device = Processes(precision), own_device()
    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = _fill(network, device)
        forward = Forward(model=network, layout="flat", pad_id=0, dropout=dropout)
        index_N = torch.zeros(response_tokens, dtype=torch.long, device=device)
        rows = _without_content(rows, device)
        with LiveBytes(weights) as live, processes.autocast(device), _no_kernels(device):
            hidden = forward.hidden(rows)
            out = hidden.float()
            if not scalar:
                transform = HeadTransform.of(network.config.get_text_config())
                out, _ = token_logprobs(hidden[index_N], network.get_output_embeddings(), index_N, transform=transform)
            trained = [p for p in network.parameters() if p.requires_grad]
            # A whole model's gradients are counted elsewhere; those of its vectors are nearly nothing.
            wanted = [p for p in trained if p.ndim == 1] or trained
            torch.autograd.grad(out.sum(), wanted, allow_unused=True)
    return float(live.peak)


def _fill(network: Any, device: torch.device) -> list[torch.Tensor]:
    """Put tensors of the device, which the mode in use makes without content, in the place of a skeleton's."""
    made: dict[int, torch.Tensor] = {}
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:  # tied weights stay tied
                    new = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_weight = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(new, tensor.requires_grad) if is_weight else new
                own[name] = made[id(tensor)]
    return list(made.values())


def _without_content(rows: Rows, device: torch.device) -> Rows:
    """Return rows of the same shapes on the device."""
    return rows.each(lambda x: torch.empty_like(x, device=device))


@contextmanager
def _no_kernels(device: torch.device) -> Generator[None]:
    """Leave out inside the block what the head's Triton kernels do where they are used.

    They compute in place on a tile of logits, so they add no bytes; tensors without content have no address for them.
    """
    from trl.kernels import chunked_logprob as head

    if not head._use_triton(device):  # pyright: ignore[reportPrivateUsage]
        yield
        return
    names = ("_use_triton", "_forward_tile", "_backward_tile")  # without Triton, TRL calls the other two
    before = {name: getattr(head, name) for name in names}
    try:
        for name in names:
            setattr(head, name, lambda *_, **__: None)
        yield
    finally:
        for name, function in before.items():
            setattr(head, name, function)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside the block, and their peak."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary(
            {tensor.untyped_storage(): 0 for tensor in known}
        )

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if not isinstance(tensor, torch.Tensor) or (storage := tensor.untyped_storage()) in self._seen:
                continue
            size = self._seen[storage] = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, size)
        return out

    def _free(self, size: int) -> None:
        self.live -= size
