"""``${…}`` in settings: other settings, and variables of the environment that hold no secret."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import Container, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from align.errors import UserError
from align.system.redaction import is_secret_variable

__all__ = ["resolved"]

_REQUIRED = object()


def resolved(config: Container) -> Any:
    """Return the settings as plain values, with all ``${…}`` in them replaced.

    Settings are printed, written down and logged, so that a secret must not come into them.

    Raises:
        UserError: ``${oc.env:NAME}`` asks for a variable that holds a secret or is not set.
        OmegaConfBaseException: Another interpolation cannot be resolved.
    """
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def _variable(name: str, default: Any = _REQUIRED) -> Any:
    asked = f"${{oc.env:{name}}}"
    if is_secret_variable(name):
        raise UserError(
            f"{asked}: this variable holds a secret, and settings are written down; a scorer that needs it takes the "
            f"name of the variable alone, as in token_env: {name}."
        )
    if name not in os.environ and default is _REQUIRED:
        raise UserError(f"{asked}: the variable is not set; export it, or write ${{oc.env:{name},DEFAULT}}.")
    return os.environ.get(name, default)
