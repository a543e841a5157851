"""Prints lines for the user once, however many processes run."""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Container, Sequence

from align.system.terminal import visible

__all__ = [
    "error_text",
    "hide_noise",
    "process_count",
    "report",
    "report_own",
    "say",
    "wait_for_first_process",
    "while_read",
    "with_options",
]


def _is_first_process() -> bool:
    """Return whether this process prints for all; torchrun and accelerate set its rank before anything is imported."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Return the number of processes that run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def hide_noise() -> None:
    """Ignore warnings of libraries about each other, which a user can do nothing about."""
    # PEFT 0.21 asks transformers 5 for a name that it deprecates.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # The embedded adapter names its base as world/base, which is a folder of the installed package.
    warnings.filterwarnings("ignore", message=".*base_model_name_or_path. was renamed.*")


def say(text: str) -> None:
    """Write `text` to stdout in the first process."""
    if _is_first_process():
        print(visible(text), flush=True)


def report(line: str) -> None:
    """Write `line` to stderr in the first process."""
    if _is_first_process():
        print(visible(line), file=sys.stderr, flush=True)


def error_text(sentences: Sequence[str]) -> str:
    """Return what is said of mistakes: one after ``Error:``, several as a list."""
    if len(sentences) == 1:
        return f"Error: {sentences[0]}"
    return f"Error: {len(sentences)} mistakes:\n" + "\n".join(f"  {sentence}" for sentence in sentences)


def report_own(line: str) -> None:
    """Write `line`, which concerns this process alone, to stderr."""
    if not line:
        return
    named = line if _is_first_process() else f"Process {os.environ['RANK']}: {line}"
    print(visible(named), file=sys.stderr, flush=True)


def wait_for_first_process() -> bool:
    """Give the first process time to print: torchrun ends it as soon as another one fails.

    Returns whether this is the first. Another one that gets here has something to say that the first did not: where
    that fails too, torchrun ends this one meanwhile.
    """
    if not (first := _is_first_process()):
        time.sleep(5)
    return first


def while_read(command: Callable[[], int]) -> int:
    """Return the exit code of `command`; 141 where the reader of its output, as ``| head``, wants no more of it."""
    try:
        try:
            return command()
        finally:  # also where --help leaves
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 141


def with_options(message: str, known: Container[str] = ()) -> str:
    """Return the message of a run with options in place of its settings of data.

    They are those of this command that are ``known``; what it has not, ``align data convert`` has.
    """

    def option(setting: re.Match[str]) -> str:
        name = setting[1].replace("_", "-")
        return f"--{name}=" if setting[1] in known else f"align data convert --{name}="

    return re.sub(r"\bdata\.(columns|format|split|subset|revision|max_rejected)=", option, message)
