"""Write a run as one model for servers, as ``align export`` does; ``--help`` says how."""

import sys

from align.cli.export import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
