"""Serve a registered scorer over HTTP; ``python scripts/serve_reward.py --help`` says how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from align import registry
from align.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(description="Serve a scorer over HTTP, for align and for OpenRLHF.")
    parser.add_argument("scorer", help=f"one of {', '.join(registry.choices('scorers'))}")
    parser.add_argument("--host", default="127.0.0.1", help="beyond this machine only with token and certificate")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--token-env", help="environment variable with the token that requests must bring")
    parser.add_argument("--tls-cert", help="file with the certificate")
    parser.add_argument("--tls-key", help="file with its key")
    parser.add_argument("--batch-size", type=int, default=64, help="most responses scored at once")
    settings = vars(parser.parse_args(arguments))
    try:
        scorer = registry.load("scorers", settings.pop("scorer"))()
        from reward.server import RewardServer

        server = RewardServer(scorer=scorer, **settings)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
