"""Ranks tell each other things over a group that has the rules of NCCL: tensors of its device alone, and no objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from align.system import collectives, processes
from align.system.processes import Processes

GPU = torch.device("cuda", 0)


class OnGpu(Tensor):
    """A tensor that pretends to lie on a GPU, as do all that are made of it."""

    @override
    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Nccl:
    """Two ranks that say the same; it has no other collective operation."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def get_world_size(self) -> int:
        return 2

    def is_initialized(self) -> bool:
        return True

    def all_reduce(self, tensor: Tensor) -> None:
        self._require(tensor)
        self.calls.append("all_reduce")
        tensor.mul_(2)

    def all_gather(self, out: list[Tensor], mine: Tensor) -> None:
        self._require(*out, mine)
        self.calls.append("all_gather")
        for tensor in out:
            tensor.copy_(mine)

    def broadcast(self, tensor: Tensor, src: int) -> None:
        self._require(tensor)
        assert src == 0
        self.calls.append("broadcast")

    def _require(self, *tensors: Tensor) -> None:
        if not all(isinstance(tensor, OnGpu) for tensor in tensors):
            raise RuntimeError("No backend type associated with device type cpu")


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> Nccl:
    group, to = Nccl(), Tensor.to

    def moved(tensor: Tensor, place: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(place, torch.device):
            return to(tensor, place, *args, **kwargs)
        copied = to(tensor, *args, **kwargs)
        return copied.as_subclass(OnGpu if place == GPU else Tensor)

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: tensor.as_subclass(Tensor))
    for module in (collectives, processes):
        monkeypatch.setattr(module, "dist", group)
    return group


def test_everything_travels_on_the_device_of_the_group(nccl: Nccl) -> None:
    ours = Processes()
    ours.world_size, ours._device = 2, GPU
    assert ours.gather(("a", 1.5)) == [("a", 1.5)] * 2
    assert nccl.calls == ["all_gather"]
    assert ours.gather("long" * 2000) == ["long" * 2000] * 2  # a letter says how long, a second call brings it
    assert nccl.calls[1:] == ["all_gather"] * 2
    assert ours.on_first(lambda: {"some": 3}) == {"some": 3}
    assert nccl.calls[3:] == ["broadcast"]
    assert ours.on_first(lambda: b"x" * 9000) == b"x" * 9000
    assert nccl.calls[4:] == ["broadcast"] * 2
    assert ours.sum_tensor(torch.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert ours.together(lambda: 4) == [4, 4]
    assert ours.reduce_metrics({"loss": (torch.tensor(3.0), 2.0)}) == {"loss": 1.5}
    assert nccl.calls[6:] == ["all_reduce", "all_gather", "all_gather"]


def test_tensors_of_one_type_are_summed_in_one_call(nccl: Nccl, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, types = [(2, 3), (4,), (), (3, 2), (0,)], [torch.float32] * 3 + [torch.float64] * 2
    tensors = [
        torch.full(shape, float(i + 1), dtype=kind) for i, (shape, kind) in enumerate(zip(shapes, types, strict=True))
    ]
    tensors[0] = tensors[0].T  # not contiguous
    of_group = [tensor.as_subclass(OnGpu) for tensor in tensors]
    collectives.sum_in_place(of_group)
    assert nccl.calls == ["all_reduce"] * 2
    assert [tensor.unique().tolist() for tensor in tensors] == [[2.0], [4.0], [6.0], [8.0], []]
    monkeypatch.setattr(collectives, "_BUCKET", 7)  # 6 elements, 4 and 1, 6 and 0
    collectives.sum_in_place(of_group)
    assert nccl.calls[2:] == ["all_reduce"] * 3
    assert [tensor.unique().tolist() for tensor in tensors] == [[4.0], [8.0], [12.0], [16.0], []]
