"""Talk to a model in the terminal, as ``align chat`` does; ``--help`` says how."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("chat"))
