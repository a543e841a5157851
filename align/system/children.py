"""Child processes that end with the one that began them, also where that is killed and can pass nothing on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

__all__ = ["ends_with_parent"]

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def ends_with_parent() -> Callable[[], None] | None:
    """Return what a child does before its program begins: Linux sends it SIGTERM when the thread that began it ends.

    Elsewhere there is no such thing: None, and a child outlives a parent that is killed.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork, after which nothing may be imported
    parent = os.getpid()

    def ask() -> None:
        prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before it was asked
            os._exit(128 + signal.SIGTERM)

    return ask
