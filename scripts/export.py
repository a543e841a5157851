"""Write a run as one model for servers, as ``align export`` does; ``--help`` says how."""

import sys

from align.cli.export import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
