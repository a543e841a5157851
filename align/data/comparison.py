"""Checks across the rows of a source: labels that stand for two prompts, and pairs with both polarities."""

from __future__ import annotations

from typing import Any

from align.data.conversion import Checked
from align.data.load_report import LeftOut, RowError, Tally
from align.data.validation import BOTH_POLARITIES
from align.errors import UserError

__all__ = ["Comparison"]

_MANY = 20
"""Rows from which on a label that is always the same is remarked on."""


class Comparison:
    """Compares the rows of each block with those before; it keeps some 200 bytes of each row."""

    def __init__(self, tally: Tally) -> None:
        """Everything is counted in ``tally``."""
        self._tally = tally
        self._own: set[int] = set()
        """Keys of the prompts that are called by their key."""
        self._prompts: dict[tuple[str, str], int] = {}
        """Kind of a label and label → key of the prompt that it stands for, of all other prompts."""
        self._pairs: set[int] = set()
        self._unread: set[str] = set()
        self._labels: dict[str, set[str]] = {}

    def add(self, found: Checked) -> Any:
        """Count a block, and return the `pyarrow.RecordBatch` of its valid rows.

        Raises:
            UserError: A column that is not read may matter, as its rows show.
        """
        tally = self._tally
        if found.objection:
            raise UserError(found.objection)
        tally.read += found.read
        self._unread |= found.unread
        for name, labels in found.labels_seen.items():
            self._labels.setdefault(name, set()).update(labels)
        remarks, rejected = list(found.remarks), set[int]()
        places: Any = found.batch.column("place")
        for number, (key, pair) in enumerate(zip(found.prompts, found.pairs, strict=True)):
            if label := self._misused(key, *found.labels.get(number, (None, None))):
                rejected.add(number)
                remarks.append((number, places[number].as_py(), label))
            elif pair ^ 1 in self._pairs:
                remarks.append((number, places[number].as_py(), BOTH_POLARITIES))
            elif pair:
                self._pairs.add(pair)
        for number, place, remark in sorted(remarks, key=lambda remark: remark[0]):
            if isinstance(remark, LeftOut):
                tally.leave_out(place, remark)
            elif isinstance(remark, RowError):
                tally.reject(place, remark)
            elif number not in rejected:
                tally.note(place, remark)
        tally.kept += found.batch.num_rows - len(rejected)
        if not rejected:
            return found.batch
        return found.batch.filter([number not in rejected for number in range(found.batch.num_rows)])

    def close(self) -> None:
        """Warn of the columns that were not read, and of a label that is always the same."""
        names = ", ".join(f'"{name}"' for name in sorted(self._unread))
        if names:
            many = len(self._unread) > 1
            self._tally.warn(f"columns {names} are not read" if many else f"column {names} is not read")
        for name, labels in self._labels.items():
            if len(labels) == 1 and self._tally.read >= _MANY:
                said = f"{name} is {next(iter(labels))} in all {self._tally.read:,} rows"
                self._tally.warn(f"{said}: is the better answer always at the same place?")

    def _misused(self, key: int, prompt_id: str | None, ranking: str | None) -> RowError | None:
        """Return the problem of a row with one of these labels that stood for another prompt before."""
        own = f"{key:016x}"
        for name, label in (("prompt_id", own if prompt_id is None else prompt_id), ("ranking", ranking)):
            if label is None:
                continue
            if name == "prompt_id" and label == own:
                first = self._prompts.get((name, label), key) if self._prompts else key
                if first == key:
                    self._own.add(key)
            elif name == "prompt_id" and self._is_own(label):
                first = int(label, 16)
            else:
                first = self._prompts.setdefault((name, label), key)
            if first != key:
                return RowError(f"{name} stands for two prompts", label)
        return None

    def _is_own(self, label: str) -> bool:
        """Return whether a label is the key of a prompt that came before."""
        try:
            return f"{(key := int(label, 16)):016x}" == label and key in self._own
        except ValueError:
            return False
