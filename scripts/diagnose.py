"""``align diagnose`` as a script: what improved in a run, what it cost, and what is unhealthy."""

from __future__ import annotations

import sys

from align.cli.diagnose import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
