"""The program `bertjax`, also as `python -m bertjax`: the command line of `bertjax.cli`."""

import sys

from bertjax.program.entry import begin

# Commands that train for long, and continue where they were stopped.
TRAINING = ("pretrain", "adapt", "finetune", "sweep")
# Commands that compute for minutes, in buffers as large as training's.
LONG = (*TRAINING, "analyze", "bench")


def main(*command: str) -> None:
    """Starts the command, those that compute for long with huge pages.

    Args:
        command: in a script of one command, its name, which then leads the command line.
    """
    words = [*command, *sys.argv[1:]]
    name = words[0] if words else ""
    begin(resumes=name in TRAINING, huge_pages=name in LONG)
    from bertjax import cli

    cli.main(words)


if __name__ == "__main__":
    main()
