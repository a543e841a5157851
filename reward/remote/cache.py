"""Answers on disk, by the hash of their question."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["AnswerCache"]


class AnswerCache:
    """Texts by question, in one SQLite file that several processes may share.

    Values are plain text: unlike diskcache, this never unpickles anything.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")

    @staticmethod
    def key(question: Any) -> str:
        """Return the hash of a JSON value, which must hold all that the answer depends on, and no secrets."""
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> str | None:
        """Return the answer stored under `key`, if there is one."""
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, answer: str) -> None:
        """Store an answer; it is on disk when this returns."""
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def _connect(self) -> sqlite3.Connection:
        """Connect for one call: a connection belongs to one thread, and answers arrive in another."""
        return sqlite3.connect(self._file, timeout=30)
