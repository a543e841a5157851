"""Optimiser and learning-rate schedule, and their state as safetensors and JSON."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typing_extensions import override

from align.errors import UserError
from align.model.sharding import is_shared
from align.settings.sharding import require_state_in_parts
from align.training.plan import require_optimizer

if TYPE_CHECKING:
    from align.settings.config import TrainerConfig


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: TrainerConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser over the trained roles' parameters; weight decay is decoupled and falls on matrices only.

    Raises:
        UserError: There is no parameter to train, or one that is not float32, or the optimiser takes no parts of one.
    """
    if not parameters:
        raise UserError("the roles to train have no parameter; give an adapter, or train all parameters.")
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise UserError(
                f"{name} is {dtype}, where most updates are rounded away; trained weights must be float32: load the "
                "model with dtype=float32, and compute with precision=bfloat16."
            )
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    others = [p for p in parameters.values() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": config.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    # PyTorch's kernels for many tensors at once take no list in which only some are shared out.
    how: dict[str, Any] = {}
    if any(map(is_shared, parameters.values())):
        require_state_in_parts(config.optimizer)
        how["foreach"] = False
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=learning_rate, betas=config.betas, eps=config.eps, **how)
        case "adamw_8bit":
            require_optimizer(config)
            import bitsandbytes  # pyright: ignore[reportMissingImports]

            return bitsandbytes.optim.AdamW8bit(groups, lr=learning_rate, betas=config.betas, eps=config.eps)
        case "rmsprop":
            return _RMSprop(groups, lr=learning_rate, eps=config.eps, **how)
        case "sgd":
            return torch.optim.SGD(groups, lr=learning_rate, **how)


def make_schedule(
    optimizer: torch.optim.Optimizer, name: str, *, warmup: float, steps: int, final: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate of each step: a linear warm-up, then ``cosine`` or ``linear`` to ``final``, or ``constant``.

    With W steps of warm-up out of N, step s (the first is 1) has the peak learning rate times

    * ``s / W`` for s ≤ W, so that the first step learns and step W has the full rate;
    * ``final + (1 − final)·d`` after it, with ``d = ½·(1 + cos πp)`` (``cosine``) or ``1 − p`` (``linear``) and
      ``p = (s − 1 − W) / (N − W)``, or 1: the full rate once more at step W + 1, and ``final`` would be reached at step
      N + 1.

    ``warmup`` below 1 is a share of the steps, from 1 a number of steps.
    """
    warmup_steps = round(warmup * steps) if warmup < 1 else int(warmup)

    def factor(done: int) -> float:
        if done < warmup_steps:
            return (done + 1) / warmup_steps
        rest = max(1, steps - warmup_steps)
        match name:
            case "cosine":
                decay = 0.5 * (1 + math.cos(math.pi * ((done - warmup_steps) / rest)))
            case "linear":
                decay = (steps - done) / rest
            case _:
                return 1.0
        return final + (1 - final) * decay

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def next_rate(schedule: Any) -> None:
    """Go on to the next learning rate; of a step left out before the first update PyTorch would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step", UserWarning)
        schedule.step()


def save_optimizer(optimizer: torch.optim.Optimizer, schedule: Any, folder: Path) -> None:
    """Write ``optimizer.safetensors`` (every tensor of the state) and ``optimizer.json`` (all that is not a tensor)."""
    save_file(
        {key: value.cpu().contiguous().clone() for key, value in optimizer_tensors(optimizer).items()},
        folder / "optimizer.safetensors",
    )
    save_settings(optimizer, schedule, folder)


def load_optimizer(optimizer: torch.optim.Optimizer, schedule: Any, folder: Path) -> None:
    """Read back what :func:`save_optimizer` wrote."""
    restore_optimizer(optimizer, schedule, folder, load_file(folder / "optimizer.safetensors"))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return every tensor of the state as ``<number of the parameter>/<name>``, as it is on this rank."""
    leaves = _leaves(optimizer.state_dict()["state"])
    return {key: value.detach() for key, value in leaves.items() if isinstance(value, torch.Tensor)}


def save_settings(optimizer: torch.optim.Optimizer, schedule: Any, folder: Path) -> None:
    """Write ``optimizer.json``: all of optimiser and schedule that is not a tensor."""
    state: dict[str, Any] = optimizer.state_dict()
    numbers = {key: value for key, value in _leaves(state["state"]).items() if not isinstance(value, torch.Tensor)}
    rest = {"numbers": numbers, "param_groups": state["param_groups"], "schedule": schedule.state_dict()}
    (folder / "optimizer.json").write_text(json.dumps(rest), encoding="utf-8")


def restore_optimizer(
    optimizer: torch.optim.Optimizer, schedule: Any, folder: Path, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back the state of `optimizer_tensors`, with what :func:`save_settings` wrote into the folder."""
    rest = json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))
    state: dict[int, Any] = {}
    for key, value in {**tensors, **rest["numbers"]}.items():
        index, *path, name = key.split("/")
        place = state.setdefault(int(index), {})
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    for saved, group in zip(rest["param_groups"], optimizer.param_groups, strict=True):
        saved["foreach"] = group.get("foreach")  # it follows from how this run is sharded
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
    schedule.load_state_dict(rest["schedule"])


class _RMSprop(torch.optim.RMSprop):
    """RMSprop with decoupled weight decay: PyTorch's adds the decay to the gradient, which is then divided."""

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        decays: list[float] = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        loss = super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return loss


def _leaves(state: Mapping[Any, Any], place: str = "") -> dict[str, Any]:
    """``{0: {"a": {"b": x}}}`` → ``{"0/a/b": x}``: 8-bit optimisers nest their state."""
    flat: dict[str, Any] = {}
    for key, value in state.items():
        path = f"{place}{key}"
        flat |= _leaves(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat
