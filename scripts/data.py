"""``align data`` as a script: convert, check, show, stats, mix and select preference data."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("data"))
