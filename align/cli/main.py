"""From the words typed to an exit code: 0 done, 2 a mistake of the user, 130 Ctrl-C, otherwise the code of the run."""

from __future__ import annotations

import atexit
import gc
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from align.cli.console import error_text, process_count, report, report_own, wait_for_first_process, while_read
from align.cli.parse import groups
from align.cli.program import program
from align.errors import SMALLER, UserError, fault_of_user, first_line, is_out_of_memory
from align.settings import registry
from align.system.files import disk_fault
from align.system.redaction import redact_streams
from align.system.signals import keep_interrupts, late_signal

__all__ = ["align", "main"]

_MENDINGS = 9
"""Times that a command is mended to see what else is wrong with it."""


def align(*words: str) -> int:
    """Run the installed command: ``align method=dpo``, ``align evaluate …``; a script's own `words` come first."""
    return main([*words, *sys.argv[1:]], groups.find_configs())


def main(words: Sequence[str], configs: Path) -> int:
    """Run the registered command that `words` begin with, otherwise train with the settings they give.

    Args:
        words: The command line without the program's name.
        configs: Folder of the configuration groups.
    """
    redact_streams()
    keep_interrupts()
    late_signal()  # to another command of this process, which has ended
    atexit.register(gc.freeze)  # Python looks at every object several times before it ends: 1.3 s of 1.6
    try:
        return while_read(lambda: _do(words, configs))
    except UserError as error:
        told = _told(error, words, configs)
        report(told)
        if not _tell(str(error)):
            report_own(told)
        return 2
    except KeyboardInterrupt as stop:
        signum = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)  # of a second signal its own
        remedy = "; a run that has written a checkpoint continues with if_exists=resume" if _is_run(words) else ""
        report(f"Stopped by {signum.name}{remedy}.")
        return 128 + signum
    except (Exception, SystemExit) as error:
        if (lost := _lost(error)) is not None:
            report_own(lost)
            return 1
        sentence = _sentence(error)
        _tell(sentence or f"{type(error).__name__}: {first_line(error)}")
        if sentence is None:
            raise
        report_own(f"Error: {sentence}.")
        return 1


def _sentence(error: BaseException) -> str | None:
    """Return what was wrong in the user's code or machine, and the remedy; None for a fault of the toolkit."""
    fault, place = fault_of_user(error), disk_fault(error)
    if fault is not None:
        return f"{fault}; correct it"
    if place is not None:
        return f"{place}; correct the place, or free space there"
    return f"out of memory ({first_line(error)}); {SMALLER}" if is_out_of_memory(error) else None


def _tell(sentence: str) -> bool:
    """Let the first process say why this one fails; returns whether it can, or is this one."""
    if process_count() == 1:
        return True
    if "align.system.processes" in sys.modules:
        from align.system.processes import tell_processes

        if tell_processes(sentence):
            return True
    return wait_for_first_process()  # the processes have not met yet


def _lost(error: BaseException) -> str | None:
    """Return the line on another process that is lost, which is what the error comes from."""
    if process_count() == 1 or "align.system.processes" not in sys.modules:
        return None
    from align.system.processes import lost_process

    return lost_process(error)


def _is_run(words: Sequence[str]) -> bool:
    return not words or words[0] not in registry.choices("commands")


def _told(error: UserError, words: Sequence[str], configs: Path) -> str:
    """Return what is wrong, all of it, and the command that would do where that is known."""
    sentences = list(map(str, error.args))
    mended: list[str] | None = list(words)
    following: UserError | None = error
    for _ in range(_MENDINGS if _is_run(words) and not {"-m", "--multirun"} & set(words) else 0):
        if following is None or (mended := _mended(mended, following)) is None:
            break
        following = _wrong_words(mended, configs)
        sentences += [sentence for sentence in (following.args if following else ()) if sentence not in sentences]
    told = error_text(sentences)
    if following is not None or mended is None:
        return told
    return f"{told}\nThis would do: {shlex.join([*program(), *mended])}"


def _mended(words: Sequence[str], error: UserError) -> list[str] | None:
    """Return the words with others at the place of those that are wrong; None unless each mistake is one of them."""
    replaced = [i for i, word in enumerate(words) if word.lstrip("+").partition("=")[0] in error.instead]
    if len(replaced) != len(error.args):
        return None
    kept = [word for i, word in enumerate(words) if i not in replaced]
    place = replaced[0]
    return [
        *kept[:place],
        *(f"{key}={value}" for key, value in error.instead.items() if value is not None),
        *kept[place:],
    ]


def _wrong_words(words: Sequence[str], configs: Path) -> UserError | None:
    """Return what is wrong with the words of a run; None for nothing."""
    from align.cli.launch.recipe import assemble_job
    from align.cli.parse.command import read_command
    from align.cli.parse.compose import register_methods
    from align.cli.parse.job import read_job

    try:
        command = read_command(words, configs)
        register_methods(configs, command.overrides)
        assemble_job(read_job(command.overrides, configs))
    except UserError as error:
        return error
    return None


def _do(words: Sequence[str], configs: Path) -> int:
    # Imported when needed: Hydra before PyTorch, and PyTorch only once the words are known to be right.
    if words and words[0] in registry.choices("commands"):
        return registry.load("commands", words[0])(words[1:])
    if {"-h", "--help"} & set(words):
        from align.cli.parse.help import help_text

        print(help_text(configs, words))
        return 0
    from align.cli.parse.command import read_command
    from align.cli.parse.compose import register_methods
    from align.cli.parse.job import read_job
    from align.system.lazy import torch_when_used

    torch_when_used()
    command = read_command(words, configs)
    register_methods(configs, command.overrides)
    if command.multirun:
        from align.cli.launch.sweep import sweep

        return sweep(command, configs)
    job = read_job(command.overrides, configs)
    from align.cli.launch.execute import execute_all
    from align.cli.launch.recipe import assemble_job

    return execute_all(assemble_job(job))
