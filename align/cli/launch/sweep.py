"""Several runs one after the other with Hydra's multirun: ``-m method=sft,dpo seed=1,2``."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from align.cli.console import process_count, report
from align.cli.parse.command import Command
from align.cli.parse.job import read_job
from align.errors import UserError

if TYPE_CHECKING:
    from align.cli.launch.recipe import Recipe
    from align.cli.launch.run import Run

__all__ = ["sweep"]

_INTERRUPTED = (130, 143)  # exit codes after SIGINT and SIGTERM


def sweep(command: Command, configs: Path) -> int:
    """Check every run, then run them; 0 if all ended well, otherwise the first other exit code."""
    words = _expand(command.overrides)
    jobs = [read_job(overrides, configs, swept=command.swept) for overrides in words]
    from align.cli.launch.recipe import assemble_job  # imports PyTorch: only once all words are right

    runs = [assemble_job(job) for job in jobs]
    with (
        # Hydra keeps a multirun.yaml in its sweep folder; each run's own folder already says how it was made.
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(version_base="1.3", config_dir=str(configs.resolve())),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        returns = hydra.multirun(
            "config",
            task_function=partial(_run_one, runs),
            overrides=[*_for_hydra(command), f"hydra.sweep.dir='{folder}'"],
            with_log_configuration=False,
        )
    results = chain.from_iterable(cast("list[list[JobReturn]]", returns))
    codes = [cast("int", result.return_value) for result in results]
    failed = [code for code in codes if code != 0]
    if failed:
        report(f"{len(failed)} of {len(codes)} runs failed.")
    return failed[0] if failed else 0


def _for_hydra(command: Command) -> Iterator[str]:
    """Yield the words that make Hydra's jobs: all settings are composed already, some for the stage of a recipe."""
    for override in command.overrides:
        key = override.partition("=")[0]
        if key.startswith("hydra"):
            yield override
        elif key in command.swept:
            yield f"++{override}" if "." in key else override


def _expand(overrides: Sequence[str]) -> list[list[str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: list the values, as in {override.key_or_group}=1,2.")
    [jobs] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return jobs


def _run_one(runs: Sequence[Run | Recipe], _: DictConfig) -> int:
    """Do the run of the multirun whose turn it is."""
    from align.cli.launch.execute import execute_all

    number = HydraConfig.get().job.num
    place = f"Run {number + 1} of {len(runs)}"
    try:
        report(f"{place}: {runs[number].config.run_name}")
        code = execute_all(runs[number])
    except UserError as error:
        report(f"{place} failed: {error}")
        return 2
    except Exception:  # Shown here, and the runs after it still happen.
        traceback.print_exc()
        if process_count() > 1:  # The other processes wait inside this run; there is no going on without them.
            raise SystemExit(1) from None
        code = 1
    if code in _INTERRUPTED:
        raise SystemExit(code)
    if code:
        report(f"{place} failed with exit code {code}.")
    return code
