"""Serve a registered scorer over HTTP, as ``align serve-reward`` does; ``--help`` says how."""

import sys

from reward.remote.serve_command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
