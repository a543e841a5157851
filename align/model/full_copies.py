"""Roles without LoRA: a full copy of the model per role."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from typing_extensions import override

from align.errors import UserError
from align.model.architecture import body
from align.model.classifier import classifier, classifier_class
from align.model.roles import FROZEN_ROLES, ROLES, SCALAR_ROLES, Role, Roles, copy_into
from align.model.sharding import Sharding, assign, without_content
from align.settings.sharding import ShardingName

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FullCopies"]


class FullCopies(Roles):
    """A full model per role; the reference is one that is given, or a frozen copy of the policy's start if required."""

    def __init__(self, model: PreTrainedModel, reference: PreTrainedModel | None = None) -> None:
        given: dict[Role, PreTrainedModel] = {} if reference is None else {"reference": reference}
        self._modules: dict[Role, PreTrainedModel] = {"policy": model, **given}
        self._shardings: dict[Role, Sharding] = {}
        self._start: Role = "policy" if given else "reference"
        self.heads, self.active = {}, "policy"

    @property
    @override
    def module(self) -> PreTrainedModel:
        return self._modules[self.active]

    @property
    @override
    def names(self) -> tuple[Role, ...]:
        return tuple(role for role in ROLES if role in self._modules)

    @property
    @override
    def sharding(self) -> Sharding | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._shardings.get(self.active)

    @override
    def activate(self, role: Role) -> None:
        self.require(role)
        self.active = role

    @override
    def shard(self, kind: ShardingName, device: torch.device, dtype: torch.dtype | None = None) -> None:
        for role, module in self._modules.items():
            trained, blank = role not in FROZEN_ROLES, without_content(module)
            self._shardings[role] = Sharding(module, kind, device, dtype, trained=trained, blank=blank)

    @override
    def add(self, role: Role) -> None:
        start: Role = self._start if self._start in self._modules else "policy"
        trained = role not in FROZEN_ROLES
        if self._shardings:
            shared = self._shardings[role] = self._shardings["policy"].copy(trained=trained)
            self._modules[role] = shared.network.requires_grad_(trained)
            copy_into(self.weights(role), {name: p.detach() for name, p in self.weights(start).items()})
        else:
            self._modules[role] = copy.deepcopy(self._modules[start]).requires_grad_(trained)
        if role in SCALAR_ROLES:
            self.add_head(role, self._modules[role])

    @contextmanager
    @override
    def merged(self) -> Generator[None]:
        """Gather the active role's layers inside the block."""
        with self.sharding.whole() if self.sharding is not None else nullcontext():
            yield

    @override
    def weights(self, role: Role) -> dict[str, nn.Parameter]:
        self.require(role)
        return dict(self._modules[role].named_parameters())

    @override
    def save(self, role: Role, folder: Path) -> None:
        self.require(role)
        module, shared = self._modules[role], self._shardings.get(role)
        kept: Any = body(module) if role in self.heads else module
        state: dict[str, torch.Tensor] = kept.state_dict() if shared is None else shared.gathered(kept)
        if role in self.heads:
            classifier(module.config, state, self.heads[role]).save_pretrained(folder)
            self.heads[role].save_scale(folder)
        else:
            module.save_pretrained(folder, state_dict=state)

    @override
    def load(self, role: Role, folder: Path) -> None:
        self.require(role)
        module = self._modules[role]
        made_of: Any = type(module)
        if role in self.heads:
            made_of = classifier_class(module.config)
        # transformers saves the experts of some models under other names than they have
        loaded, report = made_of.from_pretrained(folder, dtype=module.dtype, output_loading_info=True)
        target, state = module, loaded.state_dict()
        if role in self.heads:
            target, state = body(module), loaded.base_model.state_dict()
        fits = _shapes(state) == _shapes(target.state_dict())  # the folder's own configuration made ``loaded``
        if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"] or not fits:
            raise UserError(f"{folder}: its tensors do not fit this model; it was saved from another one.")
        if role in self.heads:
            copy_into({"": self.heads[role].weight}, {"": loaded.score.weight})
            self.heads[role].load_scale(folder)
        for name, tensor in target.state_dict().items():
            assign(tensor, state[name])


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
