"""How the devices of a run compute its step: dtype, rematerialisation, attention backend."""

from typing import Any

import jax
import jax.numpy as jnp

from bertjax.config import BertConfig
from bertjax.kernels.backends import EXPLICIT, check_backend
from bertjax.program.errors import UserError


def compute_dtype(name: str, platform: str | None = None) -> Any:
    """The dtype of matrix products: auto = bfloat16 on GPU and TPU, float32 on CPU.

    Args:
        name: as in a config.
        platform: jax's name of the devices; that of the default ones when left out.
    """
    if name == "auto":
        return jnp.float32 if (platform or jax.default_backend()) == "cpu" else jnp.bfloat16
    return jnp.dtype(name)


def remat_policy(name: str, platform: str | None = None) -> str:
    """The key of `encoder.REMAT_POLICIES`: auto = dots on CPU and GPU, none on TPU.

    Writing a layer's other intermediate values down for the backward pass costs a CPU more than to
    compute them again (docs/performance.md). On a GPU 256 rows of the base size need it to fit 141
    GB (docs/planning.md).
    """
    if name == "auto":
        return "none" if (platform or jax.default_backend()) == "tpu" else "dots"
    return name


def attention_backend(name: str, config: BertConfig, platform: str | None = None) -> str:
    """The name, checked against the devices and the dropout.

    Raises:
        UserError: it is for other devices, or would have to drop attention probabilities.
    """
    check_backend(name, platform)
    rate = config.attention_probs_dropout_prob
    if name != EXPLICIT and rate > 0:
        raise UserError(
            f"attention={name} has no probabilities to drop, and attention_probs_dropout_prob is"
            f" {rate}; pass --model.attention_probs_dropout_prob 0, or --attention {EXPLICIT}"
        )
    return name
