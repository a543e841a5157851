"""Serve a registered scorer over HTTP, as ``align serve-reward`` does; ``--help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("serve-reward"))
