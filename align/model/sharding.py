"""Sharding: every rank keeps a part of the frozen base, and a pass gathers one layer after the other.

The matrices of the decoder layers are shared out by torch's ``fully_shard`` (FSDP2). All that is trained or small stays
whole on every rank, as ordinary tensors: adapters, heads, embeddings, norms, biases. So optimiser, clipping, saving and
the sum of gradients over the ranks are those of data-parallel training. How ranks with different numbers of
micro-batches gather together is told in :mod:`align.system.turns`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from align.errors import UserError
from align.model.architecture import body, decoder_layers
from align.settings.sharding import ShardingName, require_shardable
from align.system.processes import process_state
from align.system.turns import Turn, turns

__all__ = ["Sharding", "is_shared_out", "kept_share", "whole_tensor"]


class Sharding:
    """The layers of a model that are shared out to ranks."""

    def __init__(self, network: Any, kind: str, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Share the layers out, one after the other, so that none but the one at hand is whole on the device.

        Args:
            network: A causal language model of transformers, with adapters or without; all else is moved to the device.
            kind: ``full``: over all ranks; ``node``: over those of one machine, each of which has a whole copy.
            device: Of this rank.
            dtype: Of the weights, where it is not the one that they have.

        Raises:
            UserError: The architecture has no layers that are computed one after the other.
        """
        turns.wait()
        self.layers: list[Any] = _require_layers(network, kind)
        mesh = _mesh(kind, device)
        for layer in self.layers:
            matrices = _matrices(layer)
            whole = set(layer.parameters()) - set(matrices)
            for parameter in matrices:
                parameter.data = parameter.data.to(device, dtype)
                parameter.requires_grad_(False)  # before PEFT does it: the whole and the shared-out weight are two
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        _move_rest(network, device, dtype)
        self._root: Any = body(network)
        fully_shard(self._root, mesh=mesh, ignored_params={p for p in network.parameters() if not _is_sharded(p)})
        # Of what is gathered ahead nothing may depend on the passes before, which differ between ranks: of the first
        # layer it is itself, already there.
        for before, layer in zip([self.layers[0], *self.layers], self.layers, strict=False):
            layer.set_modules_to_backward_prefetch([before])
        # The backward pass then goes through every layer, whichever of them have adapters.
        network.get_input_embeddings().register_forward_hook(lambda _module, _inputs, out: out.requires_grad_())
        self._order = self._tried(network, device)
        self._is_whole = False
        self._seat = turns.join(self)

    @contextmanager
    def forward(self, recorded: bool) -> Generator[None]:
        """Take the turn of a forward pass; ``recorded``: its gradients will be asked."""
        if self._is_whole:
            yield
            return
        with turns.take(self._seat, Turn.RECORDED if recorded else Turn.FORWARD), torch.set_grad_enabled(recorded):
            yield

    def forget_failure(self) -> None:
        """Go on after a pass that failed on all ranks alike."""
        self._root.reset_iter_state()
        turns.broken = False

    @contextmanager
    def backward(self) -> Generator[None]:
        """Take the turn of the backward passes."""
        with turns.take(self._seat, Turn.BACKWARD):
            yield

    @contextmanager
    def whole(self) -> Generator[None]:
        """Keep all layers gathered inside the block, where passes without gradients then need no other rank.

        Changes of the gathered weights are gone at its end.
        """
        if self._is_whole:
            yield
            return
        with turns.take(self._seat, Turn.WHOLE):
            for layer in self.layers:
                layer.unshard()
        self._root.set_reshard_after_forward(False)
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False
            self._root.set_reshard_after_forward(True)
            self._root.reset_iter_state()  # frees all layers, and forgets the order of the passes inside the block

    def follow(self, turn: Turn) -> None:
        """Gather the layers that a turn of another rank gathers, in its order."""
        layers = {Turn.WHOLE: self.layers, Turn.BACKWARD: self._order[::-1]}.get(turn, self._order)
        for layer in layers:
            layer.unshard()
            layer.reshard()

    @torch.no_grad()
    def _tried(self, network: Any, device: torch.device) -> list[Any]:
        """Return the layers in the order in which a pass calls them."""
        order: list[Any] = []
        hooks = [layer.register_forward_pre_hook(lambda layer, _: order.append(layer)) for layer in self.layers]
        ids = torch.zeros((1, 2), dtype=torch.long, device=device)
        body(network)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        for hook in hooks:
            hook.remove()
        return order


def is_shared_out(kind: ShardingName, *, adapters: bool, quantized: bool) -> bool:
    """Return whether ``trainer.sharding`` shares anything out, which it does not on a single process.

    Raises:
        UserError: There is no frozen base, or it is quantised.
    """
    require_shardable(kind, adapters=adapters, quantized=quantized)
    return kind != "none" and process_state().num_processes > 1


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of a model as it is without sharding; of a shared one all ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def kept_share(network: Any, kind: str, ranks: int | None = None) -> float:
    """Return the share of a model's parameters, adapters apart, that a rank keeps.

    ``ranks``: that share one copy; None: as this run was started.
    """
    if kind == "none":
        return 1.0
    sizes = {name: p.numel() for name, p in network.named_parameters() if ".lora_" not in name}
    shared = sum(p.numel() for layer in _require_layers(network, kind) for p in _matrices(layer))
    return 1 - shared / sum(sizes.values()) * (1 - 1 / (_sharing_ranks(kind) if ranks is None else ranks))


def _require_layers(network: Any, kind: str) -> list[Any]:
    layers = decoder_layers(network)
    if not layers:
        raise UserError(
            f"trainer.sharding={kind}: {network.config.model_type} models have no decoder layers that can be shared "
            "out; set it to none."
        )
    return layers


def _matrices(layer: nn.Module) -> list[nn.Parameter]:
    """Return what is shared out of a layer."""
    return [parameter for name, parameter in layer.named_parameters() if parameter.ndim >= 2 and ".lora_" not in name]


def _sharing_ranks(kind: str) -> int:
    """Return the number of ranks that share one copy of the base."""
    ranks = process_state().num_processes
    return ranks if kind == "full" else int(os.environ.get("LOCAL_WORLD_SIZE", ranks))


def _mesh(kind: str, device: torch.device) -> DeviceMesh:
    ranks, sharing = process_state().num_processes, _sharing_ranks(kind)
    if kind == "full":
        return init_device_mesh(device.type, (sharing,))
    return init_device_mesh(device.type, (ranks // sharing, sharing), mesh_dim_names=("replicate", "shard"))


def _is_sharded(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, DTensor)


def _move_rest(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Move what is not shared out. A copy is made even on the CPU, so that no tensor holds on to the files."""
    for name, parameter in network.named_parameters():
        if not _is_sharded(parameter):
            wanted = None if ".lora_" in name else dtype
            parameter.data = parameter.data.to(device, wanted, copy=True)
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
