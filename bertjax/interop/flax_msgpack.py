"""`flax_model.msgpack`, the weights of transformers' Flax classes, which its version 5 dropped."""

from pathlib import Path
from typing import Any

import numpy as np

from bertjax.interop.tensor_names import flatten
from bertjax.program.errors import UserError

# What the last part of a Flax parameter's path is called in torch.
_TORCH_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def read_flax_weights(file: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a `flax_model.msgpack` by torch's names and in torch's layout.

    msgpack holds bytes, numbers and strings; nothing of it is run.

    Raises:
        UserError: a damaged file.

    Source: `transformers.modeling_flax_pytorch_utils` (version 4) had the same rules the other way.
    """
    from flax.serialization import msgpack_restore

    try:
        tree = msgpack_restore(file.read_bytes())
        if not isinstance(tree, dict):
            raise ValueError("not a tree of parameters")
        named = dict(flatten(tree.get("params", tree)))
    except Exception as error:  # msgpack raises whatever the damaged bytes lead to
        raise UserError(
            f"{file}: damaged or cut short, or not a msgpack of Flax ({error}); fetch it again"
        ) from None
    return dict(_to_torch(path, value) for path, value in named.items())


def _to_torch(path: str, value: Any) -> tuple[str, np.ndarray]:
    *parents, last = path.split("/")
    array = np.asarray(value)
    if last == "kernel":
        array = array.T
    return ".".join([*parents, _TORCH_NAMES.get(last, last)]), array
