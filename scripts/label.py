"""``align label`` as a script: a page on which a person says which of two answers is better."""

from __future__ import annotations

import sys

from align.cli.label import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
