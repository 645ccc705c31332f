"""How the devices of a run compute its step: dtype, rematerialisation, attention backend."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from bertjax.config import BertConfig
from bertjax.kernels.backends import CHOICES, Need, choose_backend

# What a config may say of attention.
AttentionName = Literal[*CHOICES]


def compute_dtype(name: str, platform: str | None = None) -> Any:
    """Returns the dtype of matrix products: auto = bfloat16 on GPU and TPU, float32 on CPU.

    Args:
        name: as in a config.
        platform: jax's name of the devices; that of the default ones when left out.
    """
    if name == "auto":
        return jnp.float32 if (platform or jax.default_backend()) == "cpu" else jnp.bfloat16
    return jnp.dtype(name)


def remat_policy(name: str, platform: str | None = None) -> str:
    """Returns the key of `encoder.REMAT_POLICIES`: auto = dots on CPU and GPU, none on TPU.

    Writing a layer's other intermediate values down for the backward pass costs a CPU more than to
    compute them again (docs/performance.md). On a GPU 256 rows of the base size need it to fit 141
    GB (docs/planning.md).
    """
    if name == "auto":
        return "none" if (platform or jax.default_backend()) == "tpu" else "dots"
    return name


def attention_backend(
    name: str, config: BertConfig, dtype: DTypeLike, length: int, platform: str | None = None
) -> str:
    """Returns the backend of a run: the one of that name, checked, or what auto chooses.

    Args:
        name: as in a config.
        config: of the model.
        dtype: of the matrix products.
        length: most tokens a row.
        platform: jax's name of the devices; that of the default ones when left out.

    Raises:
        UserError: it cannot do what the run needs, as to drop attention probabilities.
    """
    need = Need(
        platform or jax.default_backend(),
        jnp.dtype(dtype).name,
        length,
        config.head_size,
        dropout=config.attention_probs_dropout_prob > 0,
        window=config.window is not None,
    )
    return choose_backend(name, need)
