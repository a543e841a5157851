"""Seeds, and the state of every random generator that a run uses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from align.system.processes import own_device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derived_seed(seed: int, number: int) -> int:
    """Return the seed of the ``number``-th draw of a run: an epoch, a roll-out, a part of the candidates."""
    return seed * 1_000_003 + number


def epoch_order(size: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of the data in an epoch; it depends on seed and epoch alone, so that resuming needs no state."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch) % 2**63)
    return torch.randperm(size, generator=generator).tolist()


def random_state() -> Callable[[], None]:
    """Return a function that puts Python's, NumPy's and PyTorch's generators back into their state of now."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore


def save_random_state(path: Path) -> None:
    """Write the state of Python's, NumPy's and PyTorch's generators, of the GPU that this process uses too.

    Numbers go into ``path`` as JSON, arrays into a file beside it that ends in ``.safetensors``.
    """
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(internal),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if (device := own_device()).type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    save_file(tensors, path.with_suffix(".safetensors"))
    numbers = {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"kind": str(kind), "position": int(position), "has_gauss": int(has_gauss), "cached": float(cached)},
    }
    path.write_text(json.dumps(numbers), encoding="utf-8")


def load_random_state(path: Path) -> None:
    """Put the generators back into the state that :func:`save_random_state` wrote."""
    numbers = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(path.with_suffix(".safetensors"))
    python, numpy = numbers["python"], numbers["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(tensors["torch"])
    if (device := own_device()).type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
