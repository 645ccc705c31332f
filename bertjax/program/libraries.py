"""The libraries that only the analyses need (the extra `analysis`)."""

import importlib.util

from bertjax.program.errors import UserError

LIBRARIES = ("matplotlib", "scipy", "conllu")


def require_libraries(what: str) -> None:
    """Checks that they are installed, without the time it takes to import them.

    Args:
        what: what needs them, as the user calls it.

    Raises:
        UserError: a library is not installed.
    """
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            raise UserError(
                f"{what} needs {library}, which is not installed; pip install 'bertjax[analysis]'"
            )
