"""``align data`` as a script: convert, check, show, stats, mix and select preference data."""

from __future__ import annotations

import sys

from align.cli.data import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
