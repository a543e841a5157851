"""Checkpoints that survive being killed at any moment.

A checkpoint is written into a hidden folder beside its final place. The manifest with the sha256 of each file comes
last, everything is flushed to disk, and one rename makes it visible. Nothing is overwritten in place, and older
checkpoints are deleted only after the new one has been read back and verified. Only safetensors and JSON are written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.system.files import partial_of, publish_folder, remove_folder, remove_leftovers, write_json
from align.system.identity import Identity, differences, require_same, sha256

MANIFEST = "manifest.json"
VERSION = 3
"""Version of the checkpoint format; raise it when newer code cannot continue older runs."""
_PREFIX = "step-"


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
        keep: int,
        rank: int,
        barrier: Callable[[], None],
    ) -> None:
        """
        Args:
            folder: ``<run>/checkpoints``.
            identity: Of the run.
            follows: See :func:`align.system.identity.differences`.
            keep: Number of checkpoints to keep.
            rank: Of this process.
            barrier: Waits for all ranks.
        """
        self.folder = folder
        self.identity = identity
        self.follows = follows
        self.keep = keep
        self.rank = rank
        self.barrier = barrier

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        shared: Callable[[Path], None],
        own: Callable[[Path], None],
    ) -> Path:
        """Write the checkpoint of a step; all ranks call it.

        Rank 0 calls ``shared`` for the files that all ranks have in common; every rank calls ``own`` for its own files.

        Raises:
            UserError: The disk is full or not writable; older checkpoints are intact and partial files removed.
        """
        final = self.folder / f"{_PREFIX}{step:08d}"
        if final.exists():  # resumed and stopped again before the next step
            return final
        partial = partial_of(final)
        try:
            if self.rank == 0:
                remove_leftovers(self.folder)
                partial.mkdir(parents=True)
            self.barrier()
            own(partial)
            if self.rank == 0:
                shared(partial)
            self.barrier()
            if self.rank == 0:
                self._publish(partial, final, step, state)
                self._rotate()
            self.barrier()
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"checkpoint of step {step} could not be written to {self.folder} ({error.strerror or error}); "
                "free space or choose another output_root, then continue with if_exists=resume."
            ) from error
        return final

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that verifies, and sentences for the user.

        They name each newer one that was passed over, and all that is computed otherwise from here on.

        Raises:
            UserError: It belongs to a run with another identity; the message names the differences.
        """
        notes: list[str] = []
        for folder in sorted(self.folder.glob(f"{_PREFIX}*"), reverse=True):
            try:
                manifest = verify(folder)
            except (OSError, ValueError) as error:
                notes.append(f"checkpoint {folder.name} passed over: {error}")
                continue
            version = int(manifest.get("version", 1))
            if version == VERSION:  # the identity of an earlier version has other entries
                require_same(self.folder.parent, differences(manifest["identity"], self.identity.learnt, self.follows))
                if found := differences(manifest["computed"], self.identity.computed):
                    notes.append(f"From here on results may differ in rounding: {'; '.join(found)}.")
            return Checkpoint(folder, int(manifest["step"]), manifest["state"], version), notes
        return None, notes

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
        publish_folder(partial, final)

    def _rotate(self) -> None:
        folders = sorted(self.folder.glob(f"{_PREFIX}*"), reverse=True)
        verify(folders[0])
        for old in folders[self.keep :]:
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


def newest_version(folder: Path) -> int | None:
    """Return the format of the newest checkpoint in a folder as its manifest says, unverified; None without one."""
    for checkpoint in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        try:
            return int(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8")).get("version", 1))
        except (OSError, ValueError, AttributeError):
            continue
    return None


def verify(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest and compare every file with it.

    Raises:
        ValueError: A file is missing, cut, or altered.
        OSError: Something cannot be read.
    """
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != expected["size"]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes instead of {expected['size']}")
        if sha256(path) != expected["sha256"]:
            raise ValueError(f"{name} is damaged (its sha256 differs)")
    return manifest
