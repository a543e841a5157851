"""Build a W&B workspace and a report on runs, as ``align dashboard`` does; ``--help`` says how."""

import sys

from align.cli.dashboard import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
