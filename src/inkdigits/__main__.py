"""``python -m inkdigits`` is the command line."""

from inkdigits.cli.main import main

if __name__ == "__main__":
    main(prog_name="inkdigits")
