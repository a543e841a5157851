"""Several runs one after the other with Hydra's multirun: ``-m method=sft,dpo seed=1,2``."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from align.cli.console import process_count, report
from align.cli.launch.recipe import names_recipe, read_recipe
from align.cli.parse.command import Command
from align.cli.parse.compose import compose_run
from align.cli.parse.wandb_key import require_wandb_key
from align.errors import UserError

__all__ = ["sweep"]

_INTERRUPTED = (130, 143)  # exit codes after SIGINT and SIGTERM


def sweep(command: Command, configs: Path) -> int:
    """Check every run, then run them; 0 if all ended well, otherwise the first other exit code."""
    jobs = _expand(command.overrides)
    for overrides in jobs:  # all of them before a method, and with it PyTorch, is imported
        if not names_recipe(overrides):
            require_wandb_key(compose_run(configs, overrides, swept=command.swept).wandb)
    for overrides in jobs:
        recipe = read_recipe(overrides, configs)
        config = compose_run(configs, overrides, swept=command.swept) if recipe is None else recipe.check()
        require_wandb_key(config.wandb)
    with (
        # Hydra keeps a multirun.yaml in its sweep folder; each run's own folder already says how it was made.
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(version_base="1.3", config_dir=str(configs.resolve())),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        returns = hydra.multirun(
            "config",
            task_function=partial(_run_one, configs, command.swept, len(jobs)),
            overrides=[*command.overrides, f"hydra.sweep.dir='{folder}'"],
            with_log_configuration=False,
        )
    results = chain.from_iterable(cast("list[list[JobReturn]]", returns))
    codes = [cast("int", result.return_value) for result in results]
    failed = [code for code in codes if code != 0]
    if failed:
        report(f"{len(failed)} of {len(codes)} runs failed.")
    return failed[0] if failed else 0


def _expand(overrides: Sequence[str]) -> list[list[str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: list the values, as in {override.key_or_group}=1,2.")
    [jobs] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return jobs


def _run_one(configs: Path, swept: Sequence[str], count: int, _: DictConfig) -> int:
    """One run of the multirun, from the overrides that Hydra chose for it."""
    from align.cli.launch.execute import execute

    job = HydraConfig.get()
    place = f"Run {job.job.num + 1} of {count}"
    try:
        overrides = list(job.overrides.task)
        recipe = read_recipe(overrides, configs)
        config = compose_run(configs, overrides, swept=swept) if recipe is None else recipe.check()
        report(f"{place}: {config.run_name}")
        code = execute(config) if recipe is None else recipe.run(execute)
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
