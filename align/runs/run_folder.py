"""The folder of a run, created by rank 0, with ``config.yaml``, ``command.txt`` and ``environment.json``."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Literal, cast

from align.errors import UserError, unreadable
from align.system.files import held, is_partial, read_json, remove_folder, write_json, write_text
from align.system.redaction import command_line, redact

if TYPE_CHECKING:
    from align.system.processes import Processes

IfExists = Literal["new", "resume", "overwrite"]
_MARKER = "config.yaml"
_INPUTS = "inputs.json"
_DELAY = 10.0  # seconds until a file that one machine wrote is seen on the others
_ELSEWHERE = "choose another output_root"
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
        UserError: See `create`; or the folder cannot be written, or another process has it.
    """
    try:
        if if_exists != "new":
            require_free(folder)
        made = create(folder, if_exists)
        if not (made / _MARKER).exists():
            if inputs is not None:
                write_json(made / _INPUTS, redact(inputs))
            describe(made, config)
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); choose another output_root.") from error
    return made


def require_writable(folder: Path, remedy: str = _ELSEWHERE) -> None:
    """Refuse a place where no folder can be made, before anything is loaded.

    Raises:
        UserError: Nothing can be written there.
    """
    with _new_file(folder, remedy):
        pass


def require_one_disk(folder: Path, processes: Processes) -> None:
    """Refuse a place where the processes, on several machines, do not see the same files; all of them call it.

    Each of them writes its part of a checkpoint there and reads what the first one writes.

    Raises:
        UserError: A process does not see a file of the first one, or nothing can be written there.
    """
    if processes.world_size == 1:
        return
    with ExitStack() as until:
        name, above = processes.on_first(lambda: until.enter_context(_new_file(folder)))
        place = _above(folder, above)
        answers = processes.gather((_appears(place / name), socket.gethostname()))
    blind = [rank for rank, (sees, _) in enumerate(answers) if not sees]
    if blind:
        hosts = ", ".join(dict.fromkeys(answers[rank][1] for rank in blind))
        raise UserError(
            f"{folder} is not one folder for all processes: {len(blind)} of {len(answers)} (first: process {blind[0]}; "
            f"on {hosts}) do not see what process 0 on {answers[0][1]} writes in {place}; give an output_root on "
            "a disk that all machines mount at the same place."
        )


def read_inputs(folder: Path) -> dict[str, Any] | None:
    """Return the inputs of the run in a folder; None where there is no run, or they are not known."""
    return read_json(folder / _INPUTS) if is_run(folder) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of ``config.yaml``.

    Raises:
        UserError: There is none, since no run was begun in the folder; it cannot be read, or holds no settings.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not is_run(folder):
        stages = [str(stage) for stage in sorted(folder.glob("[0-9]*-*")) if is_run(stage)]
        found = f"; its stages are: {', '.join(stages)}." if stages else f": {_MARKER} is missing."
        raise UserError(f"{folder} is not the folder of a run{found}")
    file = folder / _MARKER
    try:
        found = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {unreadable(error)}; bring it back from a copy.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no settings; bring it back from a copy.")
    return cast("dict[str, Any]", found)


def is_run(folder: Path) -> bool:
    """Return whether a run has begun in a folder."""
    return (folder / _MARKER).exists()


def alone(folder: Path) -> AbstractContextManager[int]:
    """Hold the folder of a run for this process inside the block; a `UserError` where another one has it."""
    return held(folder, "wait for its end or stop it, or give another run_name")


def require_free(folder: Path) -> None:
    """Refuse a run that another process is at."""
    if is_run(folder):
        with alone(folder):
            pass


def create(folder: Path, if_exists: IfExists) -> Path:
    """Create the folder of a run and return it; call this on one rank and tell the others.

    ``new`` never touches an existing folder: it takes ``folder``, else ``folder-2``, ``folder-3`` …. ``resume`` takes
    the folder as it is, or creates it. ``overwrite`` deletes an earlier run there. A run killed while its folder was
    made has nothing but files of this module in it, and both take it.

    Raises:
        UserError: ``overwrite`` or ``resume`` would use a folder that is not a run, or the folder has no name.
    """
    if not folder.name:
        raise UserError(f"{str(folder)!r} cannot be the folder of a run; name one, such as 'runs/dpo'.")
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
    if if_exists == "overwrite":
        remove_folder(folder)
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


@contextmanager
def _new_file(folder: Path, remedy: str = _ELSEWHERE) -> Generator[tuple[str, int]]:
    """Write a file where a folder would be made, or in the nearest place above it that exists.

    Yields its name, and how many levels above the folder it lies; at the end it is gone.

    Raises:
        UserError: Nothing can be written there.
    """
    above = next(i for i, place in enumerate(folder.absolute().parents) if place.exists())
    try:
        with NamedTemporaryFile(prefix=".align-", dir=_above(folder, above)) as file:
            yield Path(file.name).name, above
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); {remedy}.") from error


def _above(folder: Path, levels: int) -> Path:
    """Return the place above a folder, of which a relative one may lie elsewhere on another machine."""
    places = folder.absolute().parents
    return places[min(levels, len(places) - 1)]


def _appears(file: Path) -> bool:
    """Return whether a file is there; a network's disk may show it a little later."""
    until = time.monotonic() + _DELAY
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _is_half_made(folder: Path) -> bool:
    """Return whether a folder holds no more than `begin` has written when it is killed before the marker."""
    own = {_INPUTS, "command.txt", "environment.json", ".lock"}
    return all(entry.name in own or is_partial(entry) for entry in folder.iterdir())


def describe(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration (secrets redacted), the command line and the versions in use."""
    from omegaconf import OmegaConf

    # config.yaml last: it marks the folder as a run.
    command = command_line([Path(sys.executable).name, *sys.argv])
    write_text(folder / "command.txt", command + "\n")
    write_json(folder / "environment.json", environment())
    write_text(folder / _MARKER, OmegaConf.to_yaml(OmegaConf.create(redact(config))))


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
