"""The processes of a run meet at the address that their launcher gave each of them, within a bounded time.

Afterwards they wait long for each other. A wrong address would make them wait as long for processes that never come.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from align.errors import UserError, first_line
from align.system.turns import PATIENCE

__all__ = ["meet"]

_MEETING = timedelta(minutes=10)
"""Before it begins a process torchrun waits for the other machines itself, which this does not shorten."""
_PAUSE = 0.5  # seconds between two attempts to reach the first process
_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def meet() -> dict[str, Any]:
    """Return the store that the processes met at, with rank and number, for `init_process_group`; nothing for one.

    Raises:
        UserError: They did not all come.
    """
    if not all(os.environ.get(name) for name in _NAMES) or os.environ["WORLD_SIZE"] == "1":
        return {}
    own, host, port = (os.environ[name] for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    place = f"{host}:{port}"
    if own != "0":
        _require_reachable(host, int(port), f"process {own} did not reach the first one at {place}")
    try:
        store, rank, size = next(rendezvous("env://", timeout=_MEETING))
        store.set(f"align/here/{rank}", "1")
        store.wait([f"align/here/{other}" for other in range(size)], _MEETING)
    except dist.DistError as error:
        raise _refusal(f"process {own} did not meet all others at {place}", first_line(error)) from error
    store.set_timeout(PATIENCE)
    return {"store": store, "rank": rank, "world_size": size}


def _require_reachable(host: str, port: int, what: str) -> None:
    """Try until somebody listens at the address: PyTorch would say less of the reason, and that with its own stack."""
    until = time.monotonic() + _MEETING.total_seconds()
    while True:
        try:
            socket.create_connection((host, port), timeout=max(_PAUSE, until - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise _refusal(what, error.strerror or str(error)) from error
        time.sleep(_PAUSE)


def _refusal(what: str, reason: str) -> UserError:
    minutes = f"{_MEETING.total_seconds() / 60:g} minutes"
    return UserError(
        f"{what} within {minutes} ({reason.rstrip('.')}); start the command on every machine, with the address and an "
        "open port of the first one, and a number of its own (torchrun: --master-addr, --master-port, --node-rank; "
        "accelerate: --main_process_ip, --main_process_port, --machine_rank)."
    )
