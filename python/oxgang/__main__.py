"""`python -m oxgang`, and the console script `oxgang`."""

import sys


def main(argv=None):
    """Run the command with `argv` (by default the program's own); return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["run"]:
        from oxgang._run import run

        return run(words[1:])
    from oxgang._cli import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
