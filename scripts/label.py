"""``align label`` as a script: a page on which a person says which of two answers is better."""

from __future__ import annotations

import sys

from align.cli.label import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
