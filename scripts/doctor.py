"""``align doctor`` as a script: whether a run can work on this machine, before it is started."""

from __future__ import annotations

import sys

from align.cli.doctor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
