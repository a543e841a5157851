"""Ranks tell each other things in few tensors on the device of their group: NCCL takes no others, and a call costs.

A value of any kind travels as its pickle, which only the ranks of one run exchange.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["broadcast", "gather", "sum_in_place"]

_LETTER = 4096  # bytes; what fits takes one call
_HEAD = 8  # of which tell the length
_BUCKET = 1 << 26  # elements that are summed, and copied for it, at once


def gather(value: Any, device: torch.device) -> list[Any]:
    """The value of every rank, in their order: in one call where each fits a letter, else in two."""
    content = pickle.dumps(value)
    letters = _gathered(_letter(content), device)
    lengths = [_length(letter) for letter in letters]
    if max(lengths) > _LETTER - _HEAD:
        contents = _gathered(content.ljust(max(lengths), b"\0"), device)
    else:
        contents = [letter[_HEAD:] for letter in letters]
    return [pickle.loads(content[:length]) for content, length in zip(contents, lengths, strict=True)]


def broadcast(value: Any, device: torch.device) -> Any:
    """The value of the first rank, on all; those of the others do not matter."""
    content = pickle.dumps(value)
    letter = _broadcast(_letter(content), device)
    length = _length(letter)
    if length <= _LETTER - _HEAD:
        return pickle.loads(letter[_HEAD : _HEAD + length])
    return pickle.loads(_broadcast(content[:length].ljust(length, b"\0"), device))


def sum_in_place(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, those of one type in one call."""
    buckets: dict[torch.dtype, list[list[Tensor]]] = {}
    for tensor in tensors:
        same = buckets.setdefault(tensor.dtype, [[]])
        if same[-1] and sum(map(torch.numel, same[-1])) + tensor.numel() > _BUCKET:
            same.append([])
        same[-1].append(tensor)
    for bucket in chain.from_iterable(buckets.values()):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _letter(content: bytes) -> bytes:
    """Return the length of a content, and as much of it as there is room for."""
    return (len(content).to_bytes(_HEAD, "little") + content)[:_LETTER].ljust(_LETTER, b"\0")


def _length(letter: bytes) -> int:
    return int.from_bytes(letter[:_HEAD], "little")


def _gathered(content: bytes, device: torch.device) -> list[bytes]:
    mine = _tensor(content, device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [row.tobytes() for row in torch.stack(everyone).cpu().numpy()]


def _broadcast(content: bytes, device: torch.device) -> bytes:
    sent = _tensor(content, device)
    dist.broadcast(sent, src=0)
    return sent.cpu().numpy().tobytes()


def _tensor(content: bytes, device: torch.device) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)
