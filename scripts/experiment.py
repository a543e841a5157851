"""Put claims of the papers to the test on the embedded world: each file of ``configs/experiment/`` is one command.

::

    python scripts/experiment.py lora_rank           # train, measure, judge; the same command goes on where it stopped
    python scripts/experiment.py                     # all of them
    python scripts/experiment.py --list              # what there is
    python scripts/experiment.py --page              # docs/results.md alone

The table is printed; ``docs/results/NAME.json`` and ``NAME.png`` are written, and docs/results.md made anew of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from align.cli.console import while_read

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "docs" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiments that are named; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workers < 0:
        parser.error("--workers must be at least 0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from experiments.page import page
    from experiments.plan import experiments, read
    from experiments.report import conclude
    from experiments.running import Runner

    from align.cli.compare.jobs import do_tasks
    from align.cli.console import hide_noise, report
    from align.errors import UserError, did_you_mean
    from align.system.files import write_text

    if options.measure:
        from experiments.measuring import measure

        hide_noise()
        return do_tasks(options.measure, measure)
    known = experiments(_ROOT / "configs" / "experiment")
    try:
        known |= {Path(name).stem: Path(name) for name in options.names if name.endswith(".yaml")}
        if options.page:
            write_text(_RESULTS.parent / "results.md", page(_RESULTS.parent))
            return 0
        names = [Path(name).stem for name in options.names] or list(known)
        for name in names:
            if name not in known:
                raise UserError(f"{name} is none of {', '.join(known)}.{did_you_mean(name, known)}")
        if options.list:
            for name, file in known.items():
                print(f"{name:28}{read(file).title}")
            return 0
        for name in names:
            experiment = read(known[name])
            runner = Runner(name, experiment, options.output, workers=options.workers)
            conclude(name, experiment, runner, runner.run(), options.results)
        if options.results == _RESULTS:
            write_text(_RESULTS.parent / "results.md", page(_RESULTS.parent))
    except KeyboardInterrupt:
        report(f"Stopped; the same command goes on with {options.output}.")
        return 130
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="experiment.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments, or YAML files; none: all")
    parser.add_argument("--list", action="store_true", help="names and titles")
    parser.add_argument("--page", action="store_true", help="write docs/results.md of docs/results/, run nothing")
    parser.add_argument("--output", type=Path, default=Path("runs/experiments"), help="folder of runs")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of the outcome")
    parser.add_argument("--workers", type=int, default=0, help="processes at the same time; 0: one for each core")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(while_read(main))
