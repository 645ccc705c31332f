"""The attention backends by name, with what each can do and where it runs.

Every backend is one function, `attention(query, key, value, sequence_ids, *, window) -> context`
(see `blockwise.attention`). The readable one, `explicit`, is part of the model
(`model.attention.attend`): it alone has probabilities to show, to drop and to differentiate by.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from bertjax.kernels import blockwise, library
from bertjax.numerics.placement import target_platform
from bertjax.program.errors import UserError

EXPLICIT = "explicit"
EVERYWHERE = ("cpu", "gpu", "tpu")


class Backend(NamedTuple):
    """What a backend is.

    Attributes:
        attention: the function.
        platforms: jax's names of the devices that it runs on.
        summary: in a few words.
    """

    attention: Callable[..., Float[Array, "B T N H"]]
    platforms: tuple[str, ...]
    summary: str


def _splash(*arguments: Array, window: int | None = None) -> Float[Array, "B T N H"]:
    # Pallas takes half a second to import, and only TPUs need it.
    from bertjax.kernels import splash

    return splash.attention(*arguments, window=window)


BACKENDS = {
    "xla": Backend(library.xla, EVERYWHERE, "jax.nn.dot_product_attention, as XLA compiles it"),
    "cudnn": Backend(library.cudnn, ("gpu",), "cuDNN's fused kernel, bfloat16 or float16"),
    "blockwise": Backend(blockwise.attention, EVERYWHERE, "memory linear in the length"),
    "splash": Backend(_splash, ("tpu",), "jax's TPU kernel, memory linear in the length"),
}
NAMES = (EXPLICIT, *BACKENDS)


def check_backend(name: str, platform: str | None = None) -> None:
    """Checks that there is such a backend, and that it runs on the devices at hand.

    Args:
        name: one of `NAMES`.
        platform: jax's name of the devices; that of the default ones when left out.

    Raises:
        UserError: it is unknown, or for other devices.
    """
    if name not in NAMES:
        raise UserError(f"attention={name!r} is not one of {', '.join(NAMES)}")
    platform = platform or target_platform()
    if name != EXPLICIT and platform not in BACKENDS[name].platforms:
        here = [one for one in NAMES if one == EXPLICIT or platform in BACKENDS[one].platforms]
        raise UserError(
            f"attention={name} runs on {' and '.join(BACKENDS[name].platforms)}, not on {platform};"
            f" choose {', '.join(here)}"
        )
