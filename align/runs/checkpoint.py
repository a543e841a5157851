"""Checkpoints that survive being killed at any moment.

A checkpoint is written into a hidden folder beside its final place. The manifest with the sha256 of each file comes
last, with its own sha256 beside it, everything is flushed to disk, and one rename makes it visible. Nothing is
overwritten in place, and older checkpoints are deleted only after the new one has been read back and verified. Only
safetensors and JSON are written. Training waits until the files are written; a thread does the rest while it goes on.

Whatever is found wrong in a checkpoint, the one before it is taken. A damaged one is written again when its step comes,
and deleted with the first that is saved after it; other names in the folder are left alone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.system.files import disk_faults, partial_of, publish_folder, remove_folder, remove_leftovers, write_json
from align.system.identity import Identity, differences, require_same, sha256

MANIFEST, SEAL = "manifest.json", "manifest.sha256"
VERSION = 6
"""Version of the checkpoint format; raise it when newer code cannot continue older runs."""
_NAME = re.compile(r"step-[0-9]{8,}")
_UNSEALED = 3  # the last version without SEAL


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    step: int
    state: Mapping[str, Any]
    """Counters that the trainer stored beside the files."""
    version: int = VERSION


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        follows: Mapping[str, tuple[str, ...]] | None = None,
        free: tuple[str, ...] = (),
        accepted_by: Mapping[str, str] | None = None,
        keep: int,
        rank: int,
        barrier: Callable[[], None],
    ) -> None:
        """
        Args:
            folder: ``<run>/checkpoints``.
            identity: Of the run.
            follows: See :func:`align.system.identity.differences`.
            free: Names in the identity whose values may differ, which is said.
            accepted_by: See :func:`align.system.identity.require_same`.
            keep: Number of checkpoints to keep.
            rank: Of this process.
            barrier: Waits for all ranks.
        """
        self.folder = folder
        self.identity = identity
        self.follows, self.free, self.accepted_by = follows, free, accepted_by
        self.keep = keep
        self.rank = rank
        self.barrier = barrier
        self._damaged: set[Path] = set()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._begun: Future[None] | None = None

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        shared: Callable[[Path], None],
        own: Callable[[Path], None],
        waits: bool = True,
    ) -> Path:
        """Write the files of a step's checkpoint, and begin to make it the newest one; all ranks call it.

        Rank 0 calls ``shared`` for the files that all ranks have in common; every rank calls ``own`` for its own files.
        Returns where the checkpoint is once it is whole on disk, which is not waited for if ``waits`` is false: until
        then a killed run has the one before it.

        Raises:
            UserError: This one or the one before it could not be written, because the disk is full or not writable;
                older checkpoints are intact and partial files removed.
        """
        self.wait()
        final = self.folder / _name(step)
        if final.exists() and final not in self._damaged:  # resumed and stopped again before the next step
            return final
        partial = partial_of(final)
        with self._whole_or_gone(partial, step):
            if self.rank == 0:
                self.folder.mkdir(exist_ok=True)  # not its parents: a run whose disk is gone is not begun elsewhere
                remove_leftovers(self.folder)
                partial.mkdir()
            self.barrier()
            own(partial)
            if self.rank == 0:
                shared(partial)
            self.barrier()
        self._begun = self._thread.submit(self._make_newest, partial, final, step, state, set(self._damaged))
        self._damaged.clear()
        if waits:
            self.wait()
        return final

    def wait(self) -> None:
        """Wait until the checkpoint that was begun is whole on disk; all ranks call it.

        Raises:
            UserError: See `save`.
        """
        if self._begun is not None:
            self._begun.result()
            self.barrier()
            self._begun = None

    def whole(self, folder: Path) -> Path:
        """Return the folder that `save` returned once it is whole; for rank 0 alone."""
        if self._begun is not None:
            self._begun.result()
        return folder

    def raise_if_failed(self) -> None:
        """Raise what `wait` would, if it is known already."""
        if self._begun is not None and self._begun.done():
            self._begun.result()

    def close(self) -> None:
        """Wait for the thread, whatever comes of what it does."""
        self._thread.shutdown()

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that verifies, and sentences for the user.

        They name each newer one that was passed over, and all that is computed otherwise from here on.

        Raises:
            UserError: It belongs to a run with another identity; the message names the differences.
        """
        notes: list[str] = []
        if self.rank == 0:  # also where no further checkpoint is saved, which would do so
            remove_leftovers(self.folder)
        for folder in _newest_first(self.folder):
            try:
                manifest = verify(folder)
            except (OSError, ValueError) as error:
                notes.append(f"checkpoint {folder.name} passed over: {error}")
                self._damaged.add(folder)
                continue
            version = int(manifest.get("version", 1))
            if version == VERSION:  # the identity of an earlier version has other entries
                learnt = differences(manifest["identity"], self.identity.learnt, self.follows)
                said = [clause for clause in learnt if clause.startswith(self.free)]
                found = [clause for clause in learnt if clause not in said]
                require_same(self.folder.parent, found, self.accepted_by)
                if found := [*said, *differences(manifest["computed"], self.identity.computed)]:
                    random = ", and dropout draws other numbers" if said else ""
                    notes.append(f"From here on results may differ in rounding{random}: {'; '.join(found)}.")
            return Checkpoint(folder, int(manifest["step"]), manifest["state"], version), notes
        return None, notes

    def _make_newest(self, partial: Path, final: Path, step: int, state: Mapping[str, Any], damaged: set[Path]) -> None:
        """Seal and publish the checkpoint, and delete older ones; only rank 0 has something to do."""
        if self.rank == 0:
            with self._whole_or_gone(partial, step):
                self._publish(partial, final, step, state)
                self._rotate(final, damaged)

    @contextmanager
    def _whole_or_gone(self, partial: Path, step: int) -> Generator[None]:
        try:
            with disk_faults(
                f"checkpoint of step {step} could not be written to {self.folder}",
                "choose another output_root, then continue with if_exists=resume",
            ):
                yield
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _publish(self, partial: Path, final: Path, step: int, state: Mapping[str, Any]) -> None:
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = {
            "version": VERSION,
            "step": step,
            "state": dict(state),
            "identity": dict(self.identity.learnt),
            "computed": dict(self.identity.computed),
            "files": {
                str(path.relative_to(partial)): {"sha256": sha256(path), "size": path.stat().st_size} for path in files
            },
        }
        write_json(partial / MANIFEST, manifest)
        (partial / SEAL).write_text(sha256(partial / MANIFEST), encoding="ascii")
        remove_folder(final)  # a damaged one
        publish_folder(partial, final)

    def _rotate(self, saved: Path, damaged: set[Path]) -> None:
        try:
            verify(saved)
        except ValueError as error:
            raise UserError(
                f"checkpoint {saved} reads back otherwise than it was written, {error}; the ones before it are kept. "
                "Choose another output_root on a sound disk, then continue with if_exists=resume."
            ) from error
        damaged = damaged - {saved}
        intact = [folder for folder in _newest_first(self.folder) if folder not in damaged]
        for old in (*intact[self.keep :], *damaged):
            remove_folder(old)


def require_current_version(run: Path, version: int) -> None:
    """Check that training can go on from a run's checkpoints of this format.

    Raises:
        UserError: An earlier version wrote them.
    """
    if version != VERSION:
        raise UserError(
            f"{run} was begun by an earlier version of align, whose checkpoints have the format {version}, not "
            f"{VERSION}; finish it with that version, or give if_exists=new."
        )


def is_done(run: Path, checkpoint: Checkpoint | None, steps: int) -> bool:
    """Return whether a resumed run has nothing left to do; a finished one that is to have more steps goes on.

    Raises:
        UserError: An earlier version wrote its checkpoint, or it has done more steps.
    """
    if (run / "final").exists() and (checkpoint is None or checkpoint.step >= steps):
        return True
    if checkpoint is None:
        return False
    require_current_version(run, checkpoint.version)
    if checkpoint.step > steps:
        raise UserError(
            f"{run} has done {checkpoint.step} steps, more than the {steps} it is to have; raise trainer.steps, or "
            "begin another run with if_exists=new."
        )
    return False


def newest_version(folder: Path) -> int | None:
    """Return the format of the newest checkpoint in a folder as its manifest says; None without one.

    Its other files are not read.
    """
    for checkpoint in _newest_first(folder):
        try:
            return int(_read_manifest(checkpoint).get("version", 1))
        except (OSError, ValueError):
            continue
    return None


def verify(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest and compare every file with it.

    Raises:
        ValueError: A file is missing, cut, or altered.
        OSError: Something cannot be read.
    """
    manifest = _read_manifest(folder)
    try:
        step, files = (
            int(manifest["step"]),
            {name: (of["size"], of["sha256"]) for name, of in manifest["files"].items()},
        )
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{MANIFEST} is damaged") from None
    if _name(step) != folder.name:
        raise ValueError(f"{MANIFEST} is that of step {step}")
    for name, (size, expected) in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes instead of {size}")
        if sha256(path) != expected:
            raise ValueError(f"{name} is damaged (its sha256 differs)")
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest that is as it was written; see `verify`."""
    file, seal = folder / MANIFEST, folder / SEAL
    if seal.exists() and seal.read_bytes() != sha256(file).encode():
        raise ValueError(f"{MANIFEST} or {SEAL} is damaged (they do not belong together)")
    try:
        manifest: dict[str, Any] = json.loads(file.read_bytes())
        version = int(manifest.get("version", 1))
    except (AttributeError, TypeError, RecursionError):
        raise ValueError(f"{MANIFEST} is damaged") from None
    if not seal.exists() and version > _UNSEALED:
        raise ValueError(f"{SEAL} is missing")
    return manifest


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, whole or not."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
