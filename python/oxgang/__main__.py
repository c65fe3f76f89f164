"""`python -m oxgang`, and the console script `oxgang`."""

import sys


def main(argv=None):
    """Run the command with `argv` (by default the program's own); return the exit code."""
    from oxgang._cli import run

    return run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
