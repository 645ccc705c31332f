"""The programs that make models, each one readable `main(config)`: `python -m train.NAME`."""

import sys

from bertjax.compiled_programs import check_switch
from bertjax.errors import UserError, complain
from bertjax.program.entry import begin

# Programs that train for long, and go on where they were stopped.
_TRAINING = ("train.pretrain", "train.finetune", "train.sweep")

# Here, as the programs import jax in their first lines; the name stands in place of the program's
# path as long as Python looks for that.
if sys.argv[0] == "-m":
    python = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    trains = any(word.endswith(_TRAINING) for word in python)
    begin(resumes=trains, huge_pages=trains)
    try:
        check_switch()
    except UserError as error:
        sys.exit(complain(str(error)))
