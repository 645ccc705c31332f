"""The programs that make models, each one readable `main(config)`: `python -m train.NAME`."""

import sys

from bertjax.compiled_programs import check_switch
from bertjax.errors import UserError, complain

# Here, as the programs import jax in their first lines, which ends with a traceback.
try:
    check_switch()
except UserError as error:
    sys.exit(complain(str(error)))
