"""``python -m inkdigits.training`` is the command ``inkdigits train``."""

import sys

from inkdigits.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]], prog_name="inkdigits")
