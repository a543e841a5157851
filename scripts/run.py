"""Align a model on preference pairs; ``python scripts/run.py --help`` says how."""

import sys
from pathlib import Path

from align.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], configs=Path(__file__).resolve().parents[1] / "configs"))
