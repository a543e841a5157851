"""Measure a model on prompts and against another model; ``python scripts/evaluate.py --help`` says how."""

import sys

from align.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
