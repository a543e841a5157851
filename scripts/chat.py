"""Talk to a model in the terminal, as ``align chat`` does; ``--help`` says how."""

import sys

from align.cli.chat import main
from align.system.redaction import redact_streams

if __name__ == "__main__":
    redact_streams()
    sys.exit(main(sys.argv[1:]))
