#!/usr/bin/env python
"""Make the embedded world's models and data from a seed (about half an hour on two cores).

python scripts/make_world.py                      # every stage whose result is missing
python scripts/make_world.py pairs card --force   # these stages again
python scripts/make_world.py --out some/folder    # outside the package
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from world_making.stages import STAGES, Build

from align.world.shipped import FOLDER


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen stages in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: the package's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every stage (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--force", action="store_true", help="run a stage even if its result exists")
    args = parser.parse_args(arguments)
    unknown = [stage for stage in args.stages if stage not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("world_making").setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    build = Build(args.out, args.seed)
    for stage in STAGES:
        if stage in (args.stages or STAGES):
            build.run(stage, force=args.force)


if __name__ == "__main__":
    main()
