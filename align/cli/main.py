"""From the words typed to an exit code: 0 done, 2 a mistake of the user, otherwise the code of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.cli.console import report, wait_for_first_process
from align.errors import UserError

__all__ = ["main"]


def main(words: Sequence[str], configs: Path) -> int:
    """Run what `words` ask for, with the groups in the folder `configs`."""
    if {"-h", "--help"} & set(words):
        from align.cli.parse.help import help_text

        print(help_text(configs, words))
        return 0
    # Imported when needed: Hydra before PyTorch, and PyTorch only once the words are known to be right.
    try:
        from align.cli.parse.command import read_command
        from align.cli.parse.compose import register_methods
        from align.cli.parse.job import read_job

        command = read_command(words, configs)
        register_methods(configs, command.overrides)
        if command.multirun:
            from align.cli.launch.sweep import sweep

            return sweep(command, configs)
        job = read_job(command.overrides, configs)
        from align.cli.launch.execute import execute_all
        from align.cli.launch.recipe import assemble_job

        return execute_all(assemble_job(job))
    except UserError as error:
        report(f"Error: {error}")
        wait_for_first_process()
        return 2
