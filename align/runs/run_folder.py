"""The folder of a run, created by rank 0, with ``config.yaml``, ``command.txt`` and ``environment.json``."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from align.errors import UserError
from align.system.files import is_partial, read_json, write_json

IfExists = Literal["new", "resume", "overwrite"]
_SECRET = re.compile(r"(api_?key|token|secret|password|credential)", re.IGNORECASE)
_NOT_SECRET = re.compile(r"tokens|tokenizer|token_", re.IGNORECASE)
_MARKER = "config.yaml"
_INPUTS = "inputs.json"
_PACKAGES = (
    *("align-rlhf", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "wandb"),
    *("numpy", "tokenizers", "safetensors"),
)


def begin(
    folder: Path, if_exists: IfExists, config: Mapping[str, Any], inputs: Mapping[str, Any] | None = None
) -> Path:
    """Create the folder of a run, and describe the run in it if it is new; see `create` and `describe`.

    ``inputs``: identity of all that the configuration names, for `read_inputs` before it is loaded again.

    Raises:
        UserError: See `create`; or the folder cannot be written.
    """
    try:
        made = create(folder, if_exists)
        if not (made / _MARKER).exists():
            if inputs is not None:
                write_json(made / _INPUTS, redact(inputs))
            describe(made, config)
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); choose another output_root.") from error
    return made


def read_inputs(folder: Path) -> dict[str, Any] | None:
    """Return the inputs of the run in a folder; None where there is no run, or they are not known."""
    return read_json(folder / _INPUTS) if is_run(folder) else None


def is_run(folder: Path) -> bool:
    """Return whether a run has begun in a folder."""
    return (folder / _MARKER).exists()


def create(folder: Path, if_exists: IfExists) -> Path:
    """Create the folder of a run and return it; call this on one rank and tell the others.

    ``new`` never touches an existing folder: it takes ``folder``, else ``folder-2``, ``folder-3`` …. ``resume`` takes
    the folder as it is, or creates it. ``overwrite`` deletes an earlier run there.

    Raises:
        UserError: ``overwrite`` or ``resume`` would use a folder that is not a run.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if if_exists == "new":
        candidates = (folder, *(folder.with_name(f"{folder.name}-{n}") for n in range(2, 10_000)))
        for candidate in candidates:
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
        raise UserError(f"{folder}: 10,000 runs of this name exist; give run_name=.")
    require_run(folder)
    if if_exists == "overwrite" and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    return folder


def require_run(folder: Path) -> None:
    """Refuse a folder with files of something else.

    Raises:
        UserError: It has files, and is neither a run nor the beginning of one.
    """
    if folder.exists() and not is_run(folder) and not _is_half_made(folder):
        raise UserError(
            f"{folder} holds files but no run ({_MARKER} is missing); choose another run_name or output_root."
        )


def _is_half_made(folder: Path) -> bool:
    """Return whether a folder holds no more than `begin` has written when it is killed before the marker."""
    own = {_INPUTS, "command.txt", "environment.json"}
    return all(entry.name in own or is_partial(entry) for entry in folder.iterdir())


def describe(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration (secrets redacted), the command line and the versions in use."""
    from omegaconf import OmegaConf

    # config.yaml last: it marks the folder as a run.
    command = command_line([Path(sys.executable).name, *sys.argv])
    (folder / "command.txt").write_text(command + "\n", encoding="utf-8")
    write_json(folder / "environment.json", environment())
    OmegaConf.save(OmegaConf.create(redact(config)), folder / _MARKER)


def command_line(words: Iterable[str]) -> str:
    """Return the words as a shell takes them, secrets redacted."""
    return _redact_text(shlex.join(words))


def environment() -> dict[str, Any]:
    """Return the versions and the machine that a result depends on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": package_versions(_PACKAGES),
    }


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each installed package."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def redact(value: Any) -> Any:
    """Return the nested value with ``***`` for values under a secret's key and for credentials in URLs."""
    if isinstance(value, Mapping):
        return {
            key: "***" if _is_secret(str(key)) and item not in (None, "") else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return re.sub(r"://[^/@\s]+@", "://***@", value) if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key)) and not _NOT_SECRET.search(key)


def _redact_text(command: str) -> str:
    words = [
        f"{key}=***" if separator and _is_secret(key) else word
        for word in command.split(" ")
        for key, separator, _ in [word.partition("=")]
    ]
    return redact(" ".join(words))
