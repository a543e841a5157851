"""``align compare`` as a script: the same pairs through several methods, and which one won."""

from __future__ import annotations

import sys

from align.cli.compare import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
