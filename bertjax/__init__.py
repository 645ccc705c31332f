"""bertjax: BERT in JAX.

Make one with `train/`, use and study it with the `bertjax` command, read it in `bertjax/model/`.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

# What a program imports first, and where it is; jax is imported with the first of them.
_PLACES = {
    "Model": "bertjax.loaded",
    "load": "bertjax.loaded",
    "finetune": "bertjax.training.finetune",
    "pretrain": "bertjax.training.pretrain",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
