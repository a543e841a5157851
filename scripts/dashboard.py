"""Build a W&B workspace and a report on runs, as ``align dashboard`` does; ``--help`` says how."""

import sys

from align.cli.dashboard import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
