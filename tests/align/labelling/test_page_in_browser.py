"""The page in Chromium: judged by keyboard alone, killed and started again, and looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from align import Preferences
from align.cli.main import main
from align.labelling.session import Session
from tests.accessibility import assert_axe_finds_nothing, needs_axe, tab_through
from tests.align.labelling.conftest import Begin, made_pair
from tests.align.labelling.test_server import HOSTILE
from tests.chromium import CHROMIUM, Browser, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

ROOT = Path(__file__).resolve().parents[3]
READY = "!busy && state !== null"
KEYS = {"ArrowLeft": "left", "ArrowRight": "right", "ArrowDown": "tie", "ArrowUp": "bad", "s": "skip"}
SERVE = """
import sys
from pathlib import Path
from align.labelling.server import LabelServer, Progress, listen
from align.cli.main import main
from align.labelling.session import Session
session = Session(Path(sys.argv[1]))
progress = Progress(len(session.pairs))
server = LabelServer(session=session, annotator="ann", progress=progress)
server.run(listen("127.0.0.1", 0), lambda url: print(url, flush=True))
"""


@contextmanager
def program(*words: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A program that prints the page's address among its lines."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        while "http://" not in (line := process.stdout.readline()):
            assert line, "it has ended"
        yield process, next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def press(shown: Browser, key: str) -> None:
    """Press a key that changes the state, and wait for it."""
    before = shown.evaluate("state.done")
    shown.press(key)
    shown.wait_until(f"{READY} && state.done !== {before}")


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_fifty_judgements_by_keyboard_with_a_kill_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command to pairs that a method reads: nothing lost, no complaint, no request to elsewhere."""
    folder = tmp_path / "session"
    words = (
        *("scripts/label.py", "policy=world/base", "prompts=world/prompts", "pairs=80", "max_new_tokens=24"),
        *(f"out={folder}", "annotator=ann", "port=0"),
    )
    expected: list[str] = []
    with browser(tmp_path / "profile") as shown:
        for count, killed in ((20, True), (30, False)):
            with program(*words) as (process, url):
                shown.open(url, width=1100, dark=False)
                shown.wait_until(READY)
                assert shown.evaluate("state.done") == len(expected)
                if expected:
                    press(shown, "u")
                    assert shown.evaluate("document.getElementById('note').value") == "unsure"
                    expected.pop()
                    count += 1
                for number in range(count):
                    shown.wait_until(f"{READY} && state.pair !== null", 60)
                    key = list(KEYS)[number % 5]
                    if number == 19:
                        shown.press("n")
                        shown.call("Input.insertText", text="unsure")
                        shown.press("Escape")
                    press(shown, key)
                    expected.append(KEYS[key])
                assert shown.complaints == []
                assert {request[: len(url)] for request in shown.requests} <= {url, "data:,"}
                if killed:
                    kill(process)
                else:
                    process.send_signal(signal.SIGINT)
                    assert process.stdout is not None
                    said = process.stdout.read()
                    assert process.wait() == 0
    session = Session(folder)
    assert [one["verdict"] for one in session.judgements] == expected
    assert len({one["pair"] for one in session.judgements}) == len(expected) == 50
    assert "ann: 21 preferred, 10 tied, 10 both bad, 9 skipped" in said
    assert len(Preferences.load(folder / "labels.jsonl")) == 21
    monkeypatch.chdir(tmp_path)
    assert main(["method=dpo", f"data={folder / 'labels.jsonl'}", "preset=smoke"], ROOT / "configs") == 0


def test_hostile_text_and_long_words_in_every_window(begin: Begin, tmp_path: Path) -> None:
    """Nothing in a text becomes an element or runs; nothing is wider than the window; light and dark differ."""
    texts = [text.encode(errors="replace").decode() for text in HOSTILE]
    turns = [{"role": "user", "content": "word" * 200}, {"role": "assistant", "content": "x"}]
    pairs = [made_pair(i, text, f"{text}!", prompt=text) for i, text in enumerate(texts)]
    session = begin(*pairs, made_pair(99, "long" * 300, "a b\n" * 60, prompt=[*turns, turns[0]]), against="two")
    with program("-c", SERVE, str(session.folder)) as (_, url), browser(tmp_path / "profile") as shown:
        shown.open(url, width=1100, dark=False)
        shown.wait_until(READY)
        elements = shown.evaluate("document.querySelectorAll('*').length")
        for pair in pairs:
            assert shown.evaluate("document.querySelectorAll('*').length") == elements
            visible = shown.evaluate("[state.pair.prompt[0].text, state.pair.left.text, state.pair.right.text]")
            ids = ("prompt", "left", "right")
            assert [shown.evaluate(f"document.getElementById('{name}').textContent") for name in ids] == visible
            assert shown.evaluate("state.pair.key") == pair.key
            press(shown, "ArrowLeft")
        assert shown.complaints == []
        assert {request for request in shown.requests if not request.startswith(url)} <= {"data:,"}
        _look(shown, url)


def _look(shown: Browser, url: str) -> None:
    folder = os.environ.get("SCREENSHOTS")
    for width in (400, 1100):
        backgrounds: list[Any] = []
        for dark in (False, True):
            shown.open(url, width=width, dark=dark)
            shown.wait_until(READY)
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            backgrounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
            boxes = shown.evaluate(
                "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect())"
                ".map(b => [b.left, b.top, b.right, b.bottom])"
            )
            assert all(right - left >= 24 and bottom - top >= 44 for left, top, right, bottom in boxes)
            for a, b in combinations(boxes, 2):
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert _contrast(shown) >= 4.5
            if folder:
                shown.picture(Path(folder) / f"label-{width}-{'dark' if dark else 'light'}.png")
        assert backgrounds[0] != backgrounds[1]


def _contrast(shown: Browser) -> float:
    """The least contrast (WCAG 2) of a text with the background behind it."""
    colours = json.loads(
        shown.evaluate("""JSON.stringify([...document.querySelectorAll('main *, header *')]
  .filter(e => e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => { let b = e; while (getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement;
    return [getComputedStyle(e), getComputedStyle(b)].map((s, i) => s[i ? 'backgroundColor' : 'color'])
      .map(c => c.match(/[0-9]+/g).slice(0, 3).map(Number)); }))""")
    )

    def luminance(colour: list[int]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    both = [sorted(map(luminance, pair)) for pair in colours]
    return min((high + 0.05) / (low + 0.05) for low, high in both)


def test_mouse_focus_and_a_program_that_has_ended(begin: Begin, tmp_path: Path) -> None:
    session = begin(count=2)
    with program("-c", SERVE, str(session.folder)) as (process, url), browser(tmp_path / "profile") as shown:
        shown.open(url, width=400, dark=False)
        shown.wait_until(READY)
        shown.evaluate("document.querySelector('[data-verdict=bad]').click()")
        shown.wait_until(f"{READY} && state.done === 1")
        assert shown.evaluate("document.activeElement.id") == "title"
        assert "1 of 2 done: 0 preferred, 0 tied, 1 both bad" in shown.evaluate(
            "document.getElementById('said').innerText"
        )
        parts = "[...document.querySelectorAll('button, textarea, progress')]"
        assert shown.evaluate(f"{parts}.every(e => e.innerText || e.labels?.length > 0 || e.ariaLabel)")
        kill(process)
        shown.press("ArrowLeft")
        shown.wait_until("document.getElementById('problem').textContent.startsWith('The program does not answer.')")
    assert [one["verdict"] for one in Session(session.folder).judgements] == ["bad"]


@needs_axe
def test_axe_finds_nothing_to_object_to_in_any_state(begin: Begin, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who? " * 90}]
    session = begin(made_pair(0, "an answer", "another", prompt=turns), against="two")
    with program("-c", SERVE, str(session.folder)) as (_, url), browser(tmp_path / "profile") as shown:

        def is_ready() -> None:
            shown.wait_until(READY)

        def is_noting() -> None:
            is_ready()
            shown.press("n")
            shown.call("Input.insertText", text="unsure")

        def has_a_problem() -> None:
            is_ready()
            shown.evaluate("state = {...state, pair: {...state.pair, key: 'unknown'}}, judge('tie'), 0")
            shown.wait_until("!busy && document.getElementById('problem').textContent !== ''")

        assert_axe_finds_nothing(shown, url, is_ready)
        assert_axe_finds_nothing(shown, url, has_a_problem)
        assert_axe_finds_nothing(shown, url, is_noting)
        shown.press("Escape")
        press(shown, "ArrowLeft")
        assert_axe_finds_nothing(shown, url, is_ready)
        assert shown.evaluate("state.pair") is None


def test_letters_can_be_turned_off(begin: Begin, tmp_path: Path) -> None:
    """Speech that is taken for letters must not judge (WCAG 2.1.4); the choice outlives the page."""
    session = begin(count=3)
    with program("-c", SERVE, str(session.folder)) as (_, url), browser(tmp_path / "profile") as shown:
        shown.open(url, width=400, dark=False)
        shown.wait_until(READY)
        shown.evaluate("document.getElementById('letters').focus()")
        shown.press(" ")
        for _ in range(2):
            assert not shown.evaluate("document.getElementById('letters').checked")
            for key in "sun":
                shown.press(key)
            press(shown, "ArrowLeft")
            shown.open(url, width=400, dark=False)
            shown.wait_until(READY)
        assert shown.evaluate("state.done") == 2
        shown.evaluate("document.getElementById('letters').click()")
        press(shown, "s")
    assert [one["verdict"] for one in Session(session.folder).judgements] == ["left", "left", "skip"]


def test_all_is_done_by_tab_and_space_too(begin: Begin, tmp_path: Path) -> None:
    """Without the keys of its own, as with a switch or a screen reader that takes the arrows."""
    session = begin(count=3)
    with program("-c", SERVE, str(session.folder)) as (_, url), browser(tmp_path / "profile") as shown:
        shown.open(url, width=400, dark=False)
        shown.wait_until(READY)
        assert tab_through(shown) == 7  # two answers, tie, both bad, skip, letters, note; nothing to undo yet
        for key, button in ((" ", "[data-verdict=right]"), ("Enter", "[data-verdict=bad]"), ("Enter", "#undo")):
            done = shown.evaluate("state.done")
            shown.evaluate("document.getElementById('title').focus()")
            while not shown.evaluate(f"document.activeElement.matches('{button}')"):
                shown.press("Tab")
                assert shown.evaluate("document.activeElement !== document.body"), button
            shown.press(key)
            shown.wait_until(f"{READY} && state.done !== {done}")
    assert [one["verdict"] for one in Session(session.folder).judgements] == ["right"]
