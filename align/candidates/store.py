"""A JSONL file that grows chunk by chunk, and a state beside it that says which part of it counts.

The rows of a chunk are flushed to disk before the state that counts them replaces the one before. What lies beyond the
state, a torn line too, is cut off when the file is opened again, so that a kill at any point neither repeats nor loses
a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.system.files import write_json
from align.system.identity import differences, require_same

if TYPE_CHECKING:
    from align.candidates.plan import CandidatePlan

__all__ = ["GrowingFile", "drawn_otherwise", "read_summary", "state_file"]


class GrowingFile:
    """``NAME.jsonl`` with its state in ``NAME.json``."""

    def __init__(self, file: Path, settings: Mapping[str, Any], counts: Mapping[str, float]) -> None:
        """Open the file, cut to what its state counts, or make it with these counts.

        Args:
            file: Its name ends in ``.jsonl``.
            settings: JSON; of a file that is there already they must be the same.
            counts: Those that a new file begins with.

        Raises:
            UserError: The file cannot be continued.
        """
        if file.suffix != ".jsonl":
            raise UserError(f"{file}: name it NAME.jsonl.")
        self.file, self._state = file, state_file(file)
        try:
            if self._state.exists():
                self._open(settings)
            elif file.exists():
                raise UserError(f"{file} is there, but no {self._state.name} that says how it was made; remove it.")
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                self.state: dict[str, Any] = {"settings": dict(settings), "done": 0, "bytes": 0, "counts": dict(counts)}
                self._write_state()
                file.touch()
        except OSError as error:
            raise UserError(f"{file} cannot be written ({error.strerror}); choose another place.") from error

    @property
    def done(self) -> int:
        """Prompts whose rows are in the file."""
        return int(self.state["done"])

    @property
    def counts(self) -> dict[str, float]:
        """Counts so far, by name."""
        return dict(self.state["counts"])

    def append(self, rows: Sequence[Mapping[str, Any]], *, done: int, counts: Mapping[str, float]) -> None:
        """Write a chunk for good."""
        try:
            with self.file.open("ab") as stream:
                stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
                stream.flush()
                os.fsync(stream.fileno())
                size = stream.tell()
            self.state = {**self.state, "done": done, "bytes": size, "counts": dict(counts)}
            self._write_state()
        except OSError as error:
            raise UserError(
                f"{self.file} cannot be written ({error.strerror}); earlier rows are kept; free space and "
                "continue with if_exists=resume."
            ) from error

    def _open(self, settings: Mapping[str, Any]) -> None:
        try:
            self.state = json.loads(self._state.read_bytes())
            saved: Mapping[str, Any] = self.state["settings"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self._state} is damaged; remove it and {self.file}, which are then made anew.") from None
        require_same(self.file, differences(saved, settings))
        with self.file.open("ab") as stream:
            if stream.tell() < self.state["bytes"]:
                raise UserError(f"{self.file} was cut short from outside; remove it and {self._state.name}.")
            stream.truncate(self.state["bytes"])

    def _write_state(self) -> None:
        write_json(self._state, self.state)


def state_file(file: Path) -> Path:
    """Path of the state of ``file``."""
    return file.with_suffix(".json")


def drawn_otherwise(file: str | Path, plan: CandidatePlan) -> list[str]:
    """Return in which settings of its drawing a file of candidates differs from a plan; nothing for another file."""
    drawn, asked = _part_of_state(file, "settings"), plan.settings()
    if drawn is None:
        return []
    drawn = {name: drawn.get(name) for name in asked}
    drawn["sampling"] = {name: value for name, value in dict(drawn["sampling"] or {}).items() if name != "engine"}
    return differences(drawn, asked, places=("there", "here"))


def _part_of_state(file: str | Path, part: str) -> dict[str, Any] | None:
    state = state_file(Path(file))
    if state == Path(file) or not state.is_file():
        return None
    try:
        return dict(json.loads(state.read_text(encoding="utf-8"))[part])
    except (ValueError, KeyError, TypeError):
        return None


def read_summary(file: str | Path) -> dict[str, float] | None:
    """Read the counts of the drawing of ``file``; None where it is not a file of candidates.

    Counts of prompts and responses; ``reward_mean``, of all candidates, and ``reward_best``, the mean over prompts of
    the best one's.
    """
    if (found := _part_of_state(file, "counts")) is None:
        return None
    counts: dict[str, float] = dict(found)
    total, scored = counts.pop("reward_sum", 0.0), counts.get("scored", 0)
    best, prompts = counts.pop("reward_best_sum", 0.0), counts.get("scored_prompts", 0)
    if scored:
        counts |= {"reward_mean": total / scored, "reward_best": best / prompts}
    return counts
