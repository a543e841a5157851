"""Write the report of a run again, or of several side by side, as ``align report`` does; ``--help`` says how."""

import sys

from align.cli.report import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
