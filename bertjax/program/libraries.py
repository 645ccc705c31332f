"""The libraries of extras: whether those that a command needs are installed."""

import importlib.util

from bertjax.program.errors import UserError

LIBRARIES = {
    "analysis": ("matplotlib", "scipy", "conllu"),
    "onnx": ("onnx", "onnx_ir", "onnxruntime"),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "orjson", "scipy", "matplotlib"),
}


def require_libraries(what: str, extra: str = "analysis") -> None:
    """Checks that they are installed, without the time it takes to import them.

    Args:
        what: what needs them, as the user calls it.
        extra: the extra that has them, a key of `LIBRARIES`.

    Raises:
        UserError: a library is not installed.
    """
    for library in LIBRARIES[extra]:
        if importlib.util.find_spec(library) is None:
            raise UserError(
                f"{what} needs {library}, which is not installed; pip install 'bertjax[{extra}]'"
            )
