"""``align compare`` as a script: the same pairs through several methods, and which one won."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("compare"))
