"""``align label`` as a script: a page on which a person says which of two answers is better."""

import sys

from align.cli.main import align

if __name__ == "__main__":
    sys.exit(align("label"))
