"""``python -m align`` is the installed command ``align``."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align())
