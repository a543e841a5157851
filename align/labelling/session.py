"""A folder of pairs and judgements, in which nothing is ever lost.

``pairs.jsonl`` holds the answers drawn, ``judgements.jsonl`` all that annotators did, each undo too, and
``labels.jsonl`` the preferences that stand, in the pairwise format. Of the last the first two say everything: it is
written anew when a session opens and after an undo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Literal, get_args

from align.errors import UserError
from align.labelling.lines import Lines
from align.labelling.pairs import Pair, in_order, learnable, left_answer
from align.system.files import read_json, write_json, write_text
from align.system.identity import differences

__all__ = ["VERDICTS", "Session", "Verdict"]

Verdict = Literal["left", "right", "tie", "bad", "skip"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
_LONGEST = 86_400.0
"""Seconds that one judgement may take, at most."""
_LONGEST_NOTE = 10_000


class Session:
    """The pairs and judgements in a folder, for one annotator at a time; its methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Read the folder of an earlier call of :meth:`begin`.

        Raises:
            UserError: It is none, or was damaged.
        """
        self.folder = folder
        settings: Mapping[str, Any] | None = read_json(file := folder / "session.json", dict)
        if settings is None:
            raise UserError(f"{folder} is not the folder of a labelling session: there is no session.json in it.")
        self.settings = settings
        if missing := {"seed", "policy", "against"} - self.settings.keys():
            raise UserError(f"{file} is damaged (no {min(missing)}); bring it back from a copy.")
        self._lock = RLock()
        self._pairs = Lines(folder / "pairs.jsonl", Pair.read)
        self._journal = Lines(folder / "judgements.jsonl", _require_event)
        self.pairs = [Pair.read(line) for line in self._pairs.rows]
        self._by_key = {pair.key: pair for pair in self.pairs}
        self._standing: list[dict[str, Any]] = []
        self._judged: set[tuple[str, str]] = set()
        for event in self._journal.rows:
            self._replay(event)
        self._labels = self._write_labels()

    @classmethod
    def begin(cls, folder: Path, settings: Mapping[str, Any]) -> Session:
        """Make the folder, or open one that was begun with the same settings.

        Raises:
            UserError: The folder was begun with others.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "session.json"
        if (saved := read_json(file)) is None:
            write_json(file, settings)
        elif found := differences(saved, settings, places=("in it", "now")):
            raise UserError(
                f"{folder} was begun otherwise: {'; '.join(found)}; give what it began with, or out=ANOTHER_FOLDER."
            )
        return cls(folder)

    @property
    def seed(self) -> int:
        """Seed of the sides."""
        return int(self.settings["seed"])

    @property
    def arena(self) -> bool:
        """Whether the answers are those of two models."""
        return self.settings["against"] is not None

    @property
    def judgements(self) -> list[dict[str, Any]]:
        """Judgements of all annotators that were not undone, skips too, in order."""
        with self._lock:
            return list(self._standing)

    def pair(self, key: str) -> Pair:
        """Return the pair of a judgement."""
        return self._by_key[key]

    def add(self, pairs: Sequence[Pair]) -> None:
        """Keep drawn pairs."""
        lines = [{"key": p.key, "row": dict(p.row), "answers": [vars(answer) for answer in p.answers]} for p in pairs]
        with self._lock:
            self._pairs.append(lines)
            self.pairs.extend(pairs)
            self._by_key |= {pair.key: pair for pair in pairs}

    def done(self, annotator: str) -> list[dict[str, Any]]:
        """Return what this annotator judged or skipped."""
        return [event for event in self.judgements if event["annotator"] == annotator]

    def next(self, annotator: str, *, active: bool = False) -> Pair | None:
        """Return the first pair that the annotator has neither judged nor skipped; None where there is none yet."""
        with self._lock:
            done = {event["pair"] for event in self.done(annotator)}
            return next((p for p in in_order(self.pairs, active=active) if p.key not in done and not p.same), None)

    def left(self, annotator: str, pair: Pair) -> int:
        """Return which of the answers the annotator sees on the left."""
        return left_answer(self.seed, annotator, pair.key)

    def judge(self, annotator: str, pair: Pair, verdict: Verdict, *, seconds: float = 0.0, note: str = "") -> bool:
        """Keep a judgement, which is on disk when this returns; False if the annotator has judged the pair already."""
        left = self.left(annotator, pair)
        event = {
            "event": "judgement",
            "annotator": annotator,
            "pair": pair.key,
            "verdict": verdict,
            "preferred": _preferred(verdict, left),
            "left": left,
            "seconds": round(min(max(seconds, 0.0), _LONGEST), 1),
            "note": note[:_LONGEST_NOTE],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with self._lock:
            if (annotator, pair.key) in self._judged:
                return False
            self._journal.append([event])
            self._replay(event)
            if (row := self._label(event)) is not None:
                self._labels.append([row])
            return True

    def undo(self, annotator: str) -> dict[str, Any] | None:
        """Take back the annotator's last judgement or skip and return it; None where there is none."""
        with self._lock:
            if not (done := self.done(annotator)):
                return None
            event = {"event": "undo", "annotator": annotator, "pair": done[-1]["pair"]}
            self._journal.append([event])
            self._replay(event)
            self._labels = self._write_labels()
            return done[-1]

    def counts(self, judgements: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Return how many judgements are preferences, ties, both bad, skips, or no rows since an answer is blank."""
        verdicts = [judgement["verdict"] for judgement in judgements]
        preferences = sum(verdict in ("left", "right") for verdict in verdicts)
        written = sum(self._label(judgement) is not None for judgement in judgements)
        rest = {name: verdicts.count(name) for name in ("tie", "bad", "skip")}
        return {"preference": preferences, **rest, "blank": preferences - written}

    def _replay(self, event: dict[str, Any]) -> None:
        if event["pair"] not in self._by_key:
            raise UserError(f"{self._journal.file} names the pair {event['pair']}, which {self._pairs.file} has not.")
        if event["event"] == "judgement":
            if (mine := (event["annotator"], event["pair"])) in self._judged:
                raise UserError(
                    f"{self._journal.file} has two judgements of {mine[0]} on the pair {mine[1]}; keep one."
                )
            self._judged.add(mine)
            self._standing.append(event)
            return
        mine = [i for i, known in enumerate(self._standing) if known["annotator"] == event["annotator"]]
        if mine:
            gone = self._standing.pop(mine[-1])
            self._judged.remove((gone["annotator"], gone["pair"]))

    def _label(self, judgement: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row that a judgement gives, None for one that is no preference or has a blank answer."""
        if judgement["preferred"] is None:
            return None
        row = self.pair(judgement["pair"]).labelled(judgement["preferred"])
        if not learnable(row):
            return None
        kept = {name: judgement[name] for name in ("annotator", "seconds", "note")}
        return {**row, **kept, "chosen_left": judgement["verdict"] == "left"}

    def _write_labels(self) -> Lines:
        file = self.folder / "labels.jsonl"
        rows = (row for judgement in self._standing if (row := self._label(judgement)) is not None)
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return Lines(file)


def _preferred(verdict: str, left: int) -> int | None:
    """Return the answer that a verdict prefers, of which the one with this number stood on the left."""
    return {"left": left, "right": 1 - left}.get(verdict)


def _require_event(event: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `KeyError` for a line of the journal that this module did not write."""
    if event["event"] not in ("judgement", "undo"):
        raise ValueError("its event is neither judgement nor undo")
    own = ("annotator", "pair") if event["event"] == "undo" else ("annotator", "pair", "verdict", "note")
    if wrong := [name for name in own if not isinstance(event[name], str)]:
        raise ValueError(f"its {wrong[0]} is no text")
    if event["event"] == "undo":
        return
    if event["verdict"] not in VERDICTS or event["left"] not in (0, 1):
        raise ValueError(f"its verdict is none of {', '.join(VERDICTS)}, or its left none of 0 and 1")
    if event["preferred"] != _preferred(event["verdict"], event["left"]):
        raise ValueError("the answer preferred is not that of the verdict")
    if isinstance(event["seconds"], bool) or not isinstance(event["seconds"], int | float):
        raise ValueError("its seconds are no number")
