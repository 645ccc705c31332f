"""Which token sees which: the one mask of every attention backend."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

from bertjax.program.errors import UserError

# How far a token sees, to either side; an array where it is known only when the program runs, as
# that of one layer of a scan, or of every head, [N, 1, 1]. None = it sees every token.
Reach = int | Integer[Array, "..."] | None
# A reach that hides nothing; sums with it stay within int32.
_EVERYTHING = 2**30


def reach_of(window: int | None, local: Bool[Array, "*L"] | None) -> Reach:
    """Returns how far the tokens of a layer see.

    Args:
        window: of the layers that have one.
        local: whether the layer has it (of each layer, where there are several); None = it has.
    """
    check_window(window)
    if window is None or local is None:
        return window
    return jnp.where(local, window, _EVERYTHING)


def see(
    query_ids: Integer[Array, "B T"],
    key_ids: Integer[Array, "B S"],
    distance: Integer[Array, "T S"] | None = None,
    reach: Reach = None,
) -> Bool[Array, "B heads T S"]:
    """Returns who sees whom of some queries and some keys, a block of them for instance.

    Args:
        query_ids, key_ids: the examples that they belong to, 0 = padding.
        distance: how many tokens are between query and key, for `reach`.
        reach: a query sees keys at most so many tokens away.

    Returns:
        Of all heads at once (1), or of each, where each has its own reach.
    """
    visible = query_ids[:, :, None] == key_ids[:, None, :]
    visible &= (key_ids != 0)[:, None, :]
    visible = visible[:, None]
    return visible if reach is None else visible & (jnp.abs(distance) <= reach)


def see_own_sequence(
    sequence_ids: Integer[Array, "B T"], reach: Reach = None, causal: bool = False
) -> Bool[Array, "B 1 T S"]:
    """Returns who sees whom: a token its own example, padding nobody, and nobody padding.

    For a row with two examples and one place of padding, `sequence_ids = [1 1 2 2 0]`:

        query \\ key  1 1 2 2 0
                  1  x x . . .
                  1  x x . . .
                  2  . . x x .
                  2  . . x x .
                  0  . . . . .

    With a reach, it sees no further than so many tokens to either side; where it is causal,
    nothing behind itself.
    """
    places = jnp.arange(sequence_ids.shape[1])
    distance = places[:, None] - places
    visible = see(sequence_ids, sequence_ids, distance, reach)
    return visible & (distance >= 0) if causal else visible


def check_window(window: int | None) -> None:
    """Checks the width of a sliding window.

    Raises:
        UserError: it is below 1.
    """
    if window is not None and window < 1:
        raise UserError(f"window={window} must be at least 1 token to either side")
