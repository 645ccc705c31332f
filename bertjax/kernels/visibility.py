"""Which token sees which: the one mask of every attention backend."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

from bertjax.program.errors import UserError


def see(
    query_ids: Integer[Array, "B T"],
    key_ids: Integer[Array, "B S"],
    distance: Integer[Array, "T S"] | None = None,
    window: int | None = None,
) -> Bool[Array, "B 1 T S"]:
    """Returns who sees whom of some queries and some keys, a block of them for instance.

    Args:
        query_ids, key_ids: the examples that they belong to, 0 = padding.
        distance: how many tokens are between query and key, for `window`.
        window: a query sees keys at most so many tokens away; every key when left out.
    """
    visible = query_ids[:, :, None] == key_ids[:, None, :]
    visible &= (key_ids != 0)[:, None, :]
    if window is not None:
        visible &= jnp.abs(distance) <= window
    return visible[:, None]


def see_own_sequence(
    sequence_ids: Integer[Array, "B T"], window: int | None = None
) -> Bool[Array, "B 1 T S"]:
    """Returns who sees whom: a token its own example, padding nobody, and nobody padding.

    For a row with two examples and one place of padding, `sequence_ids = [1 1 2 2 0]`:

        query \\ key  1 1 2 2 0
                  1  x x . . .
                  1  x x . . .
                  2  . . x x .
                  2  . . x x .
                  0  . . . . .

    With a window, it sees no further than so many tokens to either side.
    """
    places = jnp.arange(sequence_ids.shape[1])
    return see(sequence_ids, sequence_ids, places[:, None] - places, window)


def check_window(window: int | None) -> None:
    """Checks the width of a sliding window.

    Raises:
        UserError: it is below 1.
    """
    if window is not None and window < 1:
        raise UserError(f"window={window} must be at least 1 token to either side")
