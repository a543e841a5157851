"""Write the report of a run again, or of several side by side, as ``align report`` does; ``--help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("report"))
