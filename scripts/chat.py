"""Talk to a model in the terminal, as ``align chat`` does; ``--help`` says how."""

import sys

from align.cli.chat import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
