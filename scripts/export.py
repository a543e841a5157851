"""Write a run as one model for servers, as ``align export`` does; ``--help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("export"))
