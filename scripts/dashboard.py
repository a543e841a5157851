"""Build a W&B workspace and a report on runs, as ``align dashboard`` does; ``--help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("dashboard"))
