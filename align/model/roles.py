"""Roles: the policy, the reference, the reward and the value model, and the weights of each.

:class:`Roles` is the interface. Its two implementations:

* :class:`SharedBase`: one frozen base in memory and one LoRA adapter per role. The reference is the base with its
  adapters off, or a frozen copy of the adapter the policy started from. The anchor is one that a method moves.
* :class:`align.model.full_copies.FullCopies`: without LoRA, a full copy of the model per role.
"""

from __future__ import annotations

import copy
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn
from typing_extensions import override

from align.errors import UserError
from align.model.adapters import without_base_tensors
from align.model.classifier import require_classifier
from align.model.merging import mergeable, merged
from align.model.naming import portable_name
from align.model.scalar_head import ScalarHead
from align.model.sharding import Sharding, own_part
from align.settings.sharding import ShardingName
from align.system.files import read_json

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

Role = Literal["policy", "reference", "anchor", "reward", "value"]
ROLES: tuple[Role, ...] = get_args(Role)
FROZEN_ROLES: tuple[Role, ...] = ("reference", "anchor")
SCALAR_ROLES: tuple[Role, ...] = ("reward", "value")
_SHAPE = (  # settings of an adapter that its weights must have been trained with
    *("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
)
_SCORE = "base_model.model.score.weight"  # where PEFT keeps the head of a sequence-classification model


class Roles(ABC):
    """The weights of every role, one of them active."""

    heads: dict[Role, ScalarHead]
    """The scalar heads of the reward and value roles."""
    active: Role
    dropout: float = 0.0
    """Of the adapters; each forward pass says whether it is active."""
    sharding: Sharding | None = None
    """Of the model as the active role computes it over the ranks."""

    @property
    @abstractmethod
    def module(self) -> PreTrainedModel:
        """The causal language model as the active role computes it."""

    @property
    @abstractmethod
    def names(self) -> tuple[Role, ...]:
        """The roles that exist."""

    @abstractmethod
    def activate(self, role: Role) -> None:
        """Make ``role`` the active one."""

    @abstractmethod
    def shard(self, kind: ShardingName, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Share the layers out to the ranks, all of which call it: see :class:`align.model.sharding.Sharding`."""

    @abstractmethod
    def add(self, role: Role) -> None:
        """Create a trainable role with the weights that the policy started from."""

    @abstractmethod
    def weights(self, role: Role) -> dict[str, nn.Parameter]:
        """Return the parameters that only this role has, without its head; name → parameter."""

    @abstractmethod
    def save(self, role: Role, folder: Path) -> None:
        """Write a role in the format of PEFT or transformers; for one rank alone, while the others wait for it."""

    def can_load(self, folder: Path) -> bool:
        """Return whether the role that another run saved in ``folder`` has this base and these adapter settings."""
        del folder
        return False

    @abstractmethod
    def load(self, role: Role, folder: Path) -> None:
        """Load into an existing role what :meth:`save` wrote; all ranks call it."""

    @contextmanager
    def use(self, role: Role) -> Generator[None]:
        """Compute as ``role`` inside the block, then as the previous role again, even after an exception."""
        before = self.active
        self.activate(role)
        try:
            yield
        finally:
            self.activate(before)

    @contextmanager
    def merged(self) -> Generator[None]:
        """Compute with fewer operations inside the block if possible; for many small forward passes."""
        yield

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """Return the trainable parameters of a role, its weights and its head; name → parameter."""
        own: dict[str, Any] = dict(self.weights(role))
        if role in self.heads:
            own["score.weight"] = self.heads[role].weight
        return own

    @torch.no_grad()
    def copy(self, source: Role, target: Role, weight: float = 1.0) -> None:
        """Set ``target ← (1 − weight)·target + weight·source``, a copy at 1; either both have a head or neither."""
        copy_into(self.parameters(target), {n: p.detach() for n, p in self.parameters(source).items()}, weight)
        if source in self.heads:
            self.heads[target].mean, self.heads[target].std = self.heads[source].mean, self.heads[source].std

    def require(self, role: Role) -> None:
        """Check that a role exists.

        Raises:
            UserError: It does not.
        """
        if role not in self.names:
            raise UserError(
                f"the policy has no {role} role (it has {', '.join(self.names)}); add it with require([{role!r}])."
            )

    def add_head(self, role: Role, module: PreTrainedModel) -> None:
        """Add a scalar head: N(0, 1/√(d+1)) for the reward (Stiennon et al. 2020), 0 for the value (PPO detail 7).

        Raises:
            UserError: It could not be saved.
        """
        require_classifier(module.config)
        embedding: Any = module.get_input_embeddings()
        width = int(module.config.get_text_config().hidden_size)
        head = ScalarHead(width, 1, bias=False, device=embedding.weight.device, dtype=torch.float32)
        if role == "reward":
            nn.init.normal_(head.weight, std=1 / math.sqrt(width + 1))
        else:
            nn.init.zeros_(head.weight)
        self.heads[role] = head


class SharedBase(Roles):
    """One frozen base, one adapter per role."""

    def __init__(self, peft_model: PeftModel, start: Path | None = None, *, sharding: Sharding | None = None) -> None:
        """``peft_model`` has one adapter, named ``policy``; ``start``: the folder of the adapter that it begins as."""
        self.peft_model, self.sharding = peft_model, sharding
        self.heads, self.active = {}, "policy"
        self._config: LoraConfig = copy.deepcopy(peft_model.peft_config["policy"])  # pyright: ignore[reportAttributeAccessIssue]
        self.dropout = self._config.lora_dropout
        self._layers: list[Any] = [m for m in peft_model.modules() if isinstance(m, BaseTunerLayer)]
        self._start: dict[str, torch.Tensor] | None = None
        if start is not None:
            self.load("policy", start)
            self._start = _clone(self.weights("policy"))
            self.add("reference")
        self._settle()

    @property
    @override
    def module(self) -> PreTrainedModel:
        return self.peft_model.get_base_model()  # pyright: ignore[reportReturnType]

    @property
    @override
    def names(self) -> tuple[Role, ...]:
        return tuple(role for role in ROLES if role == "reference" or role in self.peft_model.peft_config)

    @property
    def reference_is_base(self) -> bool:
        """True if the reference is the base with its adapters off."""
        return "reference" not in self.peft_model.peft_config

    @override
    def activate(self, role: Role) -> None:
        """Switch every layer; PEFT's ``set_adapter`` would search all modules, for each part of a step."""
        self.require(role)
        off = role == "reference" and self.reference_is_base
        for layer in self._layers:
            layer._disable_adapters = off
            if not off:
                layer._active_adapter = [role]
        self.active = role

    @contextmanager
    def bare(self) -> Generator[None]:
        """Compute with the base alone inside the block, then as the active role again."""
        for layer in self._layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            self.activate(self.active)

    @override
    def shard(self, kind: ShardingName, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.sharding = Sharding(self.module, kind, device, dtype)

    @override
    def add(self, role: Role) -> None:
        with whole_for(self._config, self.sharding):
            self.peft_model.add_adapter(role, copy.deepcopy(self._config))
        if self._start is not None:
            copy_into(self.weights(role), self._start)
        if role in SCALAR_ROLES:
            self.add_head(role, self.module)
        self._settle()

    @contextmanager
    @override
    def merged(self) -> Generator[None]:
        """Merge the active role's adapter into the base, gathered whole, inside the block (`align.model.merging`)."""
        with self.sharding.whole() if self.sharding is not None else nullcontext():
            layers = self._mergeable() if self.active in self.peft_model.peft_config else []
            with merged(layers, in_place=self.sharding is not None):
                yield

    def _mergeable(self) -> list[Any]:
        model: Any = self.peft_model if self.sharding is None else nn.ModuleList(self.sharding.layers)
        return mergeable(model, self.module.get_output_embeddings())

    @override
    def weights(self, role: Role) -> dict[str, nn.Parameter]:
        if role == "reference" and self.reference_is_base:
            return {}
        self.require(role)
        mark = re.compile(rf"(\.lora_\w+)\.{role}(?=\.|$)")  # lora_A.<role>.weight, lora_embedding_A.<role>
        return {
            mark.sub(r"\1", name): parameter
            for name, parameter in self.peft_model.named_parameters()
            if mark.search(name)
        }

    @override
    def save(self, role: Role, folder: Path) -> None:
        from peft import TaskType
        from peft.utils import get_peft_model_state_dict

        self.require(role)
        if role == "reference" and self.reference_is_base:
            raise UserError("the reference is the base model itself; there is no adapter to save.")
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(
            self.peft_model, adapter_name=role, save_embedding_layers=False
        )
        config: Any = copy.deepcopy(self.peft_model.peft_config[role])
        config.inference_mode = True
        config.base_model_name_or_path = portable_name(str(self.module.config.name_or_path), folder)
        if role in self.heads:
            state[_SCORE] = self.heads[role].weight
            config.task_type, config.modules_to_save = TaskType.SEQ_CLS, ["score"]
            self.heads[role].save_scale(folder)
        config.save_pretrained(str(folder))
        save_file(_clone(state), folder / "adapter_model.safetensors", metadata={"format": "pt"})

    @override
    def can_load(self, folder: Path) -> bool:
        theirs, ours = read_json(folder / "adapter_config.json"), self._config.to_dict()
        if theirs is None:
            return False
        bases = (theirs["base_model_name_or_path"], str(self.module.config.name_or_path))
        same_base = len({portable_name(base, folder) for base in bases}) == 1
        return same_base and all(_plain(theirs.get(name)) == _plain(ours[name]) for name in _SHAPE)

    @override
    def load(self, role: Role, folder: Path) -> None:
        from peft.utils import set_peft_model_state_dict

        self.require(role)
        state = load_file(folder / "adapter_model.safetensors")
        if broken := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
            raise UserError(f"{folder}: {broken[0]} has NaN or infinite numbers; the adapter is of no use.")
        if role in self.heads:
            if _SCORE not in state:
                raise UserError(f"{folder}: its adapter has no scalar head, so it is no {role} model.")
            copy_into({"": self.heads[role].weight}, {"": state.pop(_SCORE)})
            self.heads[role].load_scale(folder)
        state = without_base_tensors(state, self.peft_model, folder)
        try:
            result = set_peft_model_state_dict(self.peft_model, state, adapter_name=role)
        except RuntimeError as error:  # of another shape
            raise UserError(f"{folder}: its adapter does not fit this model ({_last_line(error)}).") from error
        missing = [name for name in result.missing_keys if f".{role}" in name and ".lora_" in name]
        if strange := [*result.unexpected_keys, *missing]:
            raise UserError(
                f"{folder}: its adapter does not fit this model, {len(strange)} tensors are only in one of them "
                f"(first: {strange[0]}); it was trained on another architecture."
            )

    def refer_to_base(self) -> None:
        """Make the base without adapters the reference."""
        if not self.reference_is_base:
            self.peft_model.delete_adapter("reference")
            self._settle()

    def _settle(self) -> None:
        """Say which roles are trained, and switch to the active one: PEFT does both as it adds and deletes."""
        for name in self.names:
            for parameter in self.weights(name).values():
                parameter.requires_grad_(name not in FROZEN_ROLES)
        self.activate(self.active)


@torch.no_grad()
def copy_into(target: Mapping[str, torch.Tensor], source: Mapping[str, torch.Tensor], weight: float = 1.0) -> None:
    """Set ``target ← (1 − weight)·target + weight·source``; sharded tensors of both are sharded alike."""
    for name, tensor in source.items():
        ours, theirs = own_part(target[name]), own_part(tensor)
        ours.lerp_(theirs, weight) if weight < 1 else ours.copy_(theirs)


def whole_for(config: LoraConfig, sharding: Sharding | None) -> AbstractContextManager[None]:
    """Gather a sharded base while an adapter is put on it that asks for its weights: DoRA begins with their lengths."""
    return sharding.whole() if sharding is not None and config.use_dora else nullcontext()


def _clone(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _plain(value: Any) -> Any:
    """A setting as JSON has it, lists in any order; unset is ``None``."""
    return sorted(value) if isinstance(value, (list, tuple, set)) else value or None


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip().rstrip(".")
