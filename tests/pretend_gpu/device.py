"""A pretend accelerator: its tensors say that they lie on ``pretend:0``, and hold their numbers in memory.

As on CUDA an operation refuses tensors of two devices, except numbers without dimension and indices. What would make
the processor wait for a GPU is counted with the line of the project that asked for it: a copy to the processor, a copy
from it that is not told to be non-blocking, and whatever has a shape that depends on values.

PyTorch keeps a registered device for good, so this belongs into a process of its own. It has no kernels of its own:
Triton, cuDNN, NCCL and bitsandbytes it does not know, and its attention is the plain one.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,  # pyright: ignore[reportPrivateUsage]
    _setup_privateuseone_for_python_backend,  # pyright: ignore[reportPrivateUsage]
)

ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{ROOT / folder}/" for folder in ("align", "methods", "reward"))
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_SHAPED_BY_VALUES = {
    *("nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal", "bincount", "argwhere"),
    *("repeat_interleave", "_local_scalar_dense"),
}


class _Module(_DummyBackendModule):
    """The answers that PyTorch wants of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *_: Any) -> None:
        pass


class Pretended(torch.Tensor):
    """A tensor of the pretend device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: Any, held: torch.Tensor) -> Pretended:
        layout: Any = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Any = torch.Tensor._make_wrapper_subclass(cls, held.size(), **layout, device=torch.device("pretend:0"))
        made.held = held
        return made

    @property
    def data(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        assert isinstance(value, Pretended)
        assert (value.shape, value.dtype) == (self.shape, self.dtype)
        self.held = value.held

    def tolist(self) -> Any:  # PyTorch's refuses subclasses
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"pretended {self.held!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _DEVICE.run(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """The device, from :meth:`register` on."""

    def __init__(self) -> None:
        super().__init__()
        self._waits: Counter[str] | None = None

    def register(self) -> torch.device:
        """Let this process have the device."""
        _setup_privateuseone_for_python_backend("pretend", backend_module=_Module())
        # torch.tensor(…, device=…) is made on the processor, then copied:
        torch._C._set_only_lift_cpu_tensors(True)  # pyright: ignore[reportPrivateUsage]
        # Nothing is there for autocast on such a device; types stay as they are in it:
        self._library = torch.library.Library("_", "IMPL")
        self._library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        self.__enter__()
        return torch.device("pretend:0")

    @contextmanager
    def counted(self) -> Generator[Counter[str]]:
        """Count inside the block how often the processor waits: ``line: operation`` → times."""
        before, self._waits = self._waits, Counter()
        try:
            yield self._waits
        finally:
            self._waits = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_there(kwargs.get("device")) or any(isinstance(x, Pretended) for x in tree_leaves((args, kwargs))):
            return self.run(func, args, kwargs)
        return func(*args, **kwargs)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute an operation of the device."""
        name = func._schema.name.removeprefix("aten::")
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        others = (args, kwargs)
        if name in _INDEXED:
            self._look_at_indices(name, args[1], args[0])
            others = (args[0], args[2:], kwargs)
        _refuse_two_devices(name, [x for x in tree_leaves(others) if isinstance(x, torch.Tensor)])
        if name in _SHAPED_BY_VALUES:
            self._wait(name)
        kwargs = dict(kwargs)
        if _is_there(kwargs.get("device")):
            kwargs["device"] = "cpu"
        out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        written = {id(x.held): x for x in tree_leaves((args, kwargs)) if isinstance(x, Pretended)}
        # What is written in place stays the same tensor, as an optimiser's or a gradient's.
        changes = any(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns)
        return tree_map(lambda x: written[id(x)] if changes and id(x) in written else _pretended(x), out)

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "copy_":
            target, source, *rest = args
            waits = not (rest[0] if rest else kwargs.get("non_blocking", False))
            self._crossed(source, isinstance(target, Pretended), waits)
            _held(target).copy_(_held(source))
            return target
        there = isinstance(args[0], Pretended)
        device = kwargs.get("device")
        goes = there if device is None else _is_there(device)
        self._crossed(args[0], goes, not kwargs.get("non_blocking", False))
        copied = func(_held(args[0]), **{**kwargs, "device": "cpu", "non_blocking": False, "pin_memory": None})
        return Pretended(copied) if goes else copied

    def _crossed(self, source: torch.Tensor, goes: bool, waits: bool) -> None:
        if not source.numel():
            return
        there = isinstance(source, Pretended)
        if there and not goes:
            self._wait("copy to the processor")
        elif goes and not there and waits:
            self._wait("blocking copy to the device")

    def _look_at_indices(self, name: str, indices: Sequence[Any], indexed: Any) -> None:
        for index in indices:
            if index is None:
                continue
            if not isinstance(indexed, Pretended) and isinstance(index, Pretended):
                raise RuntimeError(f"{name}: a tensor of the processor and an index of the device, at {_place()}")
            if isinstance(indexed, Pretended) and not isinstance(index, Pretended):
                self._wait("index of the processor")
            elif index.dtype in (torch.bool, torch.uint8):
                self._wait("boolean index")

    def _wait(self, operation: str) -> None:
        if self._waits is not None:
            self._waits[f"{_place()}: {operation}"] += 1


_DEVICE = Device()
register, counted = _DEVICE.register, _DEVICE.counted


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == "pretend"


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Pretended) else x


def _pretended(x: Any) -> Any:
    return Pretended(x) if isinstance(x, torch.Tensor) else x


def _refuse_two_devices(name: str, tensors: Sequence[torch.Tensor]) -> None:
    elsewhere = [x for x in tensors if not isinstance(x, Pretended) and x.ndim]
    if elsewhere and len(elsewhere) < len(tensors):
        raise RuntimeError(f"{name}: tensors of the processor and of the device, at {_place()}")


def _place() -> str:
    """The line of the project that is being computed."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
