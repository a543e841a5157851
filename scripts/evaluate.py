"""Measure a model on prompts and against another model; ``python scripts/evaluate.py --help`` says how."""

import sys

from align.cli.evaluate import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
