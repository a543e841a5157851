"""The command ``align serve-reward``: a registered scorer behind HTTP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from align.errors import UserError
from align.scoring.from_config import read_scorer
from align.settings import registry

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    settings = vars(_parser().parse_args(words))
    try:
        scorer = read_scorer(settings.pop("scorer"))
        from reward.remote.server import RewardServer

        server = RewardServer(scorer=scorer, **settings)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align serve-reward", description="Serve a scorer over HTTP, for align and for OpenRLHF."
    )
    names = ", ".join(registry.choices("scorers"))
    parser.add_argument("scorer", help=f"YAML file with a scorer and its settings, or one of {names}")
    parser.add_argument("--host", default="127.0.0.1", help="address; other machines need a token and a certificate")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port")
    parser.add_argument("--token-env", help="environment variable with the token that requests must send")
    parser.add_argument("--tls-cert", help="file with the certificate")
    parser.add_argument("--tls-key", help="file with its key")
    parser.add_argument("--batch-size", type=int, default=64, help="responses scored at once, at most")
    return parser
