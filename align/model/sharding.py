"""Sharding: every rank keeps a part of a model, and a pass gathers one layer after the other.

The matrices of the decoder layers are shared out by torch's ``fully_shard`` (FSDP2). All else stays whole on every
rank, as ordinary tensors: adapters, heads, embeddings, norms, biases. So with adapters optimiser, clipping, saving and
the sum of gradients over the ranks are those of data-parallel training. Where the matrices themselves are trained, each
rank has its part of their gradients, summed over the ranks as the backward pass leaves a layer, and of the optimiser's
state. How ranks with different numbers of micro-batches gather together is told in :mod:`align.system.turns`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from align.errors import UserError
from align.model.architecture import body, decoder_layers
from align.settings.sharding import ShardingName, require_shardable
from align.system.processes import process_state
from align.system.turns import Turn, turns

__all__ = [
    "Sharding",
    "assign",
    "is_shared",
    "is_shared_out",
    "kept_share",
    "own_part",
    "whole_tensor",
    "without_content",
]


class Sharding:
    """The layers of a model that are shared out to ranks."""

    def __init__(
        self,
        network: Any,
        kind: str,
        device: torch.device,
        dtype: torch.dtype | None = None,
        *,
        trained: bool = False,
        blank: Any = None,
    ) -> None:
        """Share the layers out, one after the other, so that none but the one at hand is whole on the device.

        Args:
            network: A causal language model of transformers, with adapters or without; all else is moved to the device.
            kind: ``full``: over all ranks; ``node``: over those of one machine, each of which has a whole copy.
            device: Of this rank.
            dtype: Of the weights, where it is not the one that they have.
            trained: What is shared out is trained; else it is frozen.
            blank: See :func:`without_content`; of this network before it was shared out, for :meth:`copy`.

        Raises:
            UserError: The architecture has no layers that are computed one after the other.
        """
        turns.wait()
        self.network, self.trained = network, trained
        self._made_as, self._blank = (kind, device, dtype), blank
        self.layers: list[Any] = _require_layers(network, kind)
        mesh = _mesh(kind, device)
        for layer in self.layers:
            matrices = _matrices(layer)
            whole = set(layer.parameters()) - set(matrices)
            for parameter in matrices:
                parameter.data = parameter.data.to(device, dtype).contiguous()
                parameter.requires_grad_(trained)  # before PEFT does it: the whole and the shared-out weight are two
            shared: Any = fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
            # The weights in a loss make the sum over ranks the mean of the step. FSDP divides unless it is told not to,
            # on gloo though it has no such operation (pytorch#162338).
            shared.set_gradient_divide_factor(1.0)
            shared.set_force_sum_reduction_for_comms(True)
            shared.set_reduce_scatter_unused_params(True)
        _move_rest(network, device, dtype)
        self._root: Any = body(network)
        fully_shard(self._root, mesh=mesh, ignored_params={p for p in network.parameters() if not is_shared(p)})
        # Of what is gathered ahead nothing may depend on the passes before, which differ between ranks: of the first
        # layer it is itself, already there.
        for before, layer in zip([self.layers[0], *self.layers], self.layers, strict=False):
            layer.set_modules_to_backward_prefetch([before])
        # The backward pass then goes through every layer, whichever of them have adapters.
        network.get_input_embeddings().register_forward_hook(lambda _module, _inputs, out: out.requires_grad_())
        self._order = self._tried()
        self._followed: list[torch.Tensor] = []
        self._is_whole = False
        self._seat = turns.join(self)

    @contextmanager
    def forward(self, recorded: bool) -> Generator[None]:
        """Take the turn of a forward pass; ``recorded``: its gradients will be asked."""
        if self._is_whole:
            yield
            return
        turn = turns.take(self._seat, Turn.RECORDED if recorded else Turn.FORWARD)
        with turn, torch.set_grad_enabled(recorded), _nothing_cached():
            yield

    def forget_failure(self) -> None:
        """Go on after a pass that failed on all ranks alike."""
        self._root.reset_iter_state()
        turns.broken = False

    def drop(self) -> None:
        """Forget the passes that were followed: a failure took their backward passes away."""
        self._followed.clear()

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
        """Gather the layers that a turn of another rank gathers, in its order.

        Trained ones sum gradients too, in an order that FSDP knows: there a pass of one row is made, of weight 0.
        """
        if self.trained and turn is Turn.RECORDED:
            with torch.enable_grad():
                self._followed.append(self._pass())
            return
        if self.trained and turn is Turn.BACKWARD:
            (0 * self._followed.pop().sum()).backward()
            return
        layers = {Turn.WHOLE: self.layers, Turn.BACKWARD: self._order[::-1]}.get(turn, self._order)
        for layer in layers:
            layer.unshard()
            layer.reshard()

    def copy(self, *, trained: bool) -> Sharding:
        """Share out a further model as this one was, whose weights are still to be set; all ranks call it."""
        return Sharding(without_content(self._blank), *self._made_as, trained=trained)

    @torch.no_grad()
    def gathered(self, module: Any) -> dict[str, torch.Tensor]:
        """Return the state of the model, or of a module around its layers, whole and in the machine's own memory.

        For one rank alone, while the others wait for it: they follow. No more than a layer is whole on the device.
        """
        names = {id(each): name for name, each in module.named_modules()}
        state: dict[str, torch.Tensor] = module.state_dict()
        with turns.take(self._seat, Turn.WHOLE):
            for layer in self.layers:
                layer.unshard()
                for name, parameter in layer.named_parameters():
                    state[f"{names[id(layer)]}.{name}"] = parameter.detach().to("cpu", copy=True)
                layer.reshard()
        return state

    @torch.no_grad()
    def _tried(self) -> list[Any]:
        """Return the layers in the order in which a pass calls them."""
        order: list[Any] = []
        hooks = [layer.register_forward_pre_hook(lambda layer, _: order.append(layer)) for layer in self.layers]
        self._pass()
        for hook in hooks:
            hook.remove()
        return order

    def _pass(self) -> torch.Tensor:
        """Return the last hidden states of the shortest row that there is."""
        ids = torch.zeros((1, 2), dtype=torch.long, device=self._made_as[1])
        return body(self.network)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state


def is_shared_out(kind: ShardingName, *, quantized: bool) -> bool:
    """Return whether ``trainer.sharding`` shares anything out, which it does not on a single process.

    Raises:
        UserError: The weights are quantised.
    """
    require_shardable(kind, quantized=quantized)
    return kind != "none" and process_state().num_processes > 1


def without_content(network: Any) -> Any:
    """Return a copy of a model whose weights are all 0 and take no memory."""
    empty = {id(p): nn.Parameter(p.new_zeros(()).expand(p.shape), p.requires_grad) for p in network.parameters()}
    return copy.deepcopy(network, empty)


def is_shared(tensor: torch.Tensor) -> bool:
    """Return whether this rank has only a part of a tensor."""
    return isinstance(tensor, DTensor)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank has of a tensor, which is all of one that is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def assign(target: torch.Tensor, whole: torch.Tensor) -> None:
    """Set a tensor of a model, of a shared one this rank's part."""
    if isinstance(target, DTensor):
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    own_part(target).copy_(own_part(whole))


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


@contextmanager
def _nothing_cached() -> Generator[None]:
    """Keep autocast from holding on to what it has converted: layer by layer that would become the whole model."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


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
    """Return the number of ranks that share one copy of the model."""
    ranks = process_state().num_processes
    return ranks if kind == "full" else int(os.environ.get("LOCAL_WORLD_SIZE", ranks))


def _mesh(kind: str, device: torch.device) -> DeviceMesh:
    ranks, sharing = process_state().num_processes, _sharing_ranks(kind)
    if kind == "full":
        return init_device_mesh(device.type, (sharing,))
    return init_device_mesh(device.type, (ranks // sharing, sharing), mesh_dim_names=("replicate", "shard"))


def _move_rest(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Move what is not shared out. A copy is made even on the CPU, so that no tensor holds on to the files."""
    for name, parameter in network.named_parameters():
        if not is_shared(parameter):
            wanted = None if ".lora_" in name else dtype
            parameter.data = parameter.data.to(device, wanted, copy=True)
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
