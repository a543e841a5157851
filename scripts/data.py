"""``align data`` as a script: convert, check, show, stats, mix and select preference data."""

from __future__ import annotations

import sys

from align.cli.data import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
