"""``align doctor`` as a script: whether a run can work on this machine, before it is started."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("doctor"))
