#!/usr/bin/env python
"""Write the pictures of docs/ anew: pages of a run and of a comparison, and labelling and chat with the run's policy.

PYTHONPATH=. python scripts/screenshots.py runs/NAME runs/compare-NAME
"""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
import tempfile
import termios
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from align.cli.console import while_read
from tests.chromium import Browser, browser

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1120
TYPED = ("I want to buy a bowl and a saddle. Which of them costs more?", "/compare", "/retry")
_READY = "!busy && state?.pair"


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the four pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that answered held-out prompts")
    parser.add_argument("comparison", type=Path, help="folder of align compare")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder of the pictures")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder) / "profile") as shown:
        shown.call("Emulation.setScrollbarsHidden", hidden=True)
        shown.open((args.run / "report.html").resolve(), width=WIDTH, dark=False)
        _save(shown, args.out / "report.png", down_to="h3:nth-of-type(2) ~ .beside")
        shown.open((args.comparison / "comparison.html").resolve(), width=WIDTH, dark=False)
        _save(shown, args.out / "comparison.png", down_to="figure")
        with _label_page(args.run, Path(folder) / "labels") as url:
            shown.open(url, width=WIDTH, dark=False)
            for key in ("ArrowLeft", "ArrowRight", "ArrowDown"):
                shown.wait_until(_READY, 60)
                shown.press(key)
            shown.wait_until(f"{_READY} && state.done === 3", 60)
            _save(shown, args.out / "label.png", down_to="#noted")
        page = Path(folder) / "terminal.html"
        page.write_text(_terminal([sys.executable, str(ROOT / "scripts" / "chat.py"), str(args.run)], TYPED), "utf-8")
        shown.open(page, width=900, dark=True)
        _save(shown, args.out / "chat.png", down_to="pre")
    return 0


def _save(shown: Browser, file: Path, *, down_to: str) -> None:
    """Write the page down to the first element that a selector finds, in the 256 colours that differ most."""
    end = shown.evaluate(f"document.querySelector('{down_to}').getBoundingClientRect().bottom")
    shown.picture(file, height=round(end) + 16)
    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


@contextmanager
def _label_page(run: Path, out: Path) -> Generator[str]:
    words = (f"policy={run}", "prompts=world/prompts", "pairs=12", f"out={out}", "port=0")
    command = [sys.executable, str(ROOT / "scripts" / "label.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()


def _terminal(command: Sequence[str], typed: Sequence[str], columns: int = 92) -> str:
    """Return a page with what a terminal shows, in which each line is typed when the command asks for it."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (50, columns))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(its)
        said = b""
        for line in (*typed, "/quit"):
            while not said.endswith(b"> "):
                said += os.read(ours, 4096)
            os.write(ours, f"{line}\n".encode())
            while not said.rstrip().endswith(line.encode()[-columns // 2 :]):
                said += os.read(ours, 4096)
        process.wait()
    os.close(ours)
    console = Console(record=True, width=columns, file=StringIO())
    console.print(Text.from_ansi(said.decode().replace("\r\n", "\n")))
    return console.export_html(theme=MONOKAI, inline_styles=True)


if __name__ == "__main__":
    sys.exit(while_read(main))
