"""`python -m bertjax` is the `bertjax` command."""

from bertjax.cli import main

main()
