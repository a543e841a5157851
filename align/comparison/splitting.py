"""Which rows of the data a comparison trains on, tunes on, judges by and reports."""

from __future__ import annotations

from dataclasses import dataclass

from align.data import Preferences
from align.errors import UserError

_HELD_OUT, _MOST_HELD_OUT = 0.2, 400
_JUDGE = 0.3
_TUNING, _MOST_TUNING = 0.1, 200


@dataclass(frozen=True)
class Splits:
    """Parts of the data; no prompt is in two of them."""

    train: Preferences
    heldout: Preferences
    """Prompts and pairs that are reported; nothing is trained on or chosen by them."""
    judge: Preferences | None = None
    """Pairs on which the judge is trained, and no method."""
    tuning: Preferences | None = None
    """Prompts on which settings are chosen."""

    @property
    def parts(self) -> dict[str, Preferences]:
        """Those that there are, by name."""
        all = {"train": self.train, "heldout": self.heldout, "judge": self.judge, "tuning": self.tuning}
        return {name: part for name, part in all.items() if part is not None}


def split(
    data: Preferences,
    heldout: Preferences | None,
    *,
    heldout_size: float | None,
    judge: bool,
    tuning: bool,
    seed: int,
) -> Splits:
    """Split by prompts: a fifth is held out (400 prompts at most), three tenths of the rest train the judge.

    Args:
        data: All rows to train on.
        heldout: Rows held out by the user; None: they are split off.
        heldout_size: Number or share of the prompts held out, where the user gives one.
        judge: Split off pairs for the judge.
        tuning: Split off prompts to choose settings on: a tenth, 200 at most.
        seed: Of the choice.

    Raises:
        UserError: There are too few prompts.
    """
    prompts = len(set(data.questions()))
    if prompts < 20:
        raise UserError(f"{data.report.source}: {prompts} prompts are too few to compare methods on; give 20 or more.")
    if heldout is None:
        size = min(_MOST_HELD_OUT, round(_HELD_OUT * prompts)) if heldout_size is None else heldout_size
        data, heldout = data.train_test_split(int(size) if size >= 1 else size, seed)
    judged = tuned = None
    if judge:
        data, judged = data.train_test_split(_JUDGE, seed + 1)
    if tuning:
        data, tuned = data.train_test_split(min(_MOST_TUNING, max(1, round(_TUNING * prompts))), seed + 2)
    return Splits(data, heldout, judged, tuned)
