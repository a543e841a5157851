"""A bar for readings that take longer than a few seconds, as `datasets` shows one for tokenisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from align.data.conversion import Checked
from align.data.reading import matching
from align.system.terminal import visible

__all__ = ["with_progress"]

_DELAY = 3  # seconds


def with_progress(blocks: Iterable[Checked], source: str) -> Iterator[Checked]:
    """Yield the blocks of a source; show the rows so far and the time left, by the bytes of its files."""
    from datasets.utils import tqdm

    path = Path(source).expanduser()
    total = sum(file.stat().st_size for file in ([path] if path.is_file() else matching(source)))
    read = 0
    with tqdm(desc=f"Reading {visible(path.name)}", unit=" rows", delay=_DELAY, disable=None) as bar:
        for block in blocks:
            yield block
            read += block.size
            if total and read:
                bar.total = round((bar.n + block.read) * total / read)
            bar.update(block.read)
