"""``align diagnose`` as a script: what improved in a run, what it cost, and what is unhealthy."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("diagnose"))
