"""The program `bertjax`, also as `python -m bertjax`: the command line of `bertjax.cli`."""

import sys

from bertjax.program.entry import begin

# Commands that compute for minutes, in buffers as large as training's.
LONG = ("analyze", "bench")


def main() -> None:
    """Starts the command, those that compute for long with huge pages."""
    begin(huge_pages=sys.argv[1:2] != [] and sys.argv[1] in LONG)
    from bertjax import cli

    cli.main()


if __name__ == "__main__":
    main()
