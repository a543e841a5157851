"""Looks for the packages of trackers and a key for W&B before a run starts, so that nothing prompts or hangs."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from align.errors import UserError
from align.runs.services import require_installed
from align.settings.config import RunConfig

__all__ = ["has_wandb_key", "require_trackers"]


def require_trackers(config: RunConfig) -> None:
    """Raise `UserError` where a package is missing, or ``wandb.mode=online`` has no key to log in with."""
    require_installed(config.trackers)
    if "wandb" not in config.trackers or config.wandb.mode != "online" or has_wandb_key():
        return
    raise UserError(
        "wandb.mode=online needs a key: run `wandb login`, set WANDB_API_KEY, "
        "or write wandb.mode=offline and send the run later with `wandb sync`."
    )


def has_wandb_key() -> bool:
    """Return whether W&B can log in."""
    return bool(os.environ.get("WANDB_API_KEY")) or _key_in_netrc()


def _key_in_netrc() -> bool:
    """`wandb login` writes its key to this file."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    given = os.environ.get("NETRC")
    files = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        if file.is_file():
            try:
                return netrc.netrc(file).authenticators(host) is not None
            except netrc.NetrcParseError as error:
                raise UserError(f"{file} cannot be read: {error.msg} in line {error.lineno}.") from error
    return False
