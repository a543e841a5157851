"""Serve a registered scorer over HTTP, as ``align serve-reward`` does; ``--help`` says how."""

import sys

from align.system.redaction import redact_streams
from reward.remote.serve_command import main

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
