"""Measure a model on prompts and against another model; ``python scripts/evaluate.py --help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("evaluate"))
