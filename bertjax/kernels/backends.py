"""The attention backends by name: what each can do, and which one `auto` takes.

Every backend is one function, `attention(query, key, value, sequence_ids, *, window=None) ->
context` (see `blockwise.attention`), with `dropout` and `dtype` where the table says so. The
functions are imported when they are needed, so that programs can name backends before jax is
loaded. To add one, write its file and its line of `BACKENDS`: choices, checks, messages, the
conformance suite and `bertjax bench attention` read the table.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from bertjax.program.errors import UserError

AUTO, EXPLICIT, DENSE = "auto", "explicit", "dense"
EVERYWHERE = ("cpu", "gpu", "tpu")
# In longer rows `auto` takes a backend that makes no map of every pair. Up to here `dense` is the
# fastest forward and backward; the maps of 12 heads of 4,096 tokens take it 3 GiB
# (docs/performance.md).
LONGEST_DENSE = 4096


class Need(NamedTuple):
    """What is asked of a backend.

    Attributes:
        platform: jax's name of the devices.
        dtype: name of the dtype of query, key and value.
        length: tokens a row.
        head_size: H.
        dropout: attention probabilities are dropped.
        maps: attention probabilities are read or edited.
        window: a token sees a limited number of tokens to either side.
    """

    platform: str
    dtype: str
    length: int
    head_size: int
    dropout: bool = False
    maps: bool = False
    window: bool = False


class Backend(NamedTuple):
    """What a backend is, and what it can do.

    Attributes:
        source: where its function is defined, `module:name`.
        summary: in a few words.
        platforms: jax's names of the devices that it runs on.
        dtypes: of query, key and value; every one when empty.
        head_sizes: H has to be a multiple of the first, and at most the second.
        dropout: it drops probabilities: takes `dropout`, a `numerics.dropout.Dropout`.
        maps: its probabilities can be read and edited.
        window: it takes a window.
        narrows: it takes `dtype`, of the operands of its products, where query, key and value are
            wider, as they are on a CPU.
        square: it makes maps of every pair of tokens, [B, N, T, S].
        skips: what is beyond a window is not computed, block by block.
        interpreted: it takes `interpret=True`, with which it runs anywhere, slowly.
    """

    source: str
    summary: str
    platforms: tuple[str, ...] = EVERYWHERE
    dtypes: tuple[str, ...] = ()
    head_sizes: tuple[int, float] = (1, float("inf"))
    dropout: bool = False
    maps: bool = False
    window: bool = True
    narrows: bool = False
    square: bool = False
    skips: bool = False
    interpreted: bool = False

    @property
    def attention(self) -> Callable[..., Any]:
        """The function."""
        module, name = self.source.split(":")
        return getattr(importlib.import_module(module), name)

    def objection(self, need: Need) -> str:
        """Says why it cannot do what is asked, to follow its name; "" where it can.

        Args:
            need: what is asked of it.
        """
        multiple, most = self.head_sizes
        if need.platform not in self.platforms:
            return f"runs on {' and '.join(self.platforms)}, not on {need.platform}"
        if self.dtypes and need.dtype not in self.dtypes:
            return f"computes in {' or '.join(self.dtypes)}, not in {need.dtype}"
        if need.head_size % multiple or need.head_size > most:
            return (
                f"needs a head size that is a multiple of {multiple}, at most {most}, not"
                f" {need.head_size}"
            )
        if need.dropout and not self.dropout:
            return "has no probabilities to drop (attention_probs_dropout_prob is above 0)"
        if need.maps and not self.maps:
            return "has no probabilities to read or edit"
        if need.window and not self.window:
            return "has no window, and attention_window is set"
        return ""


BACKENDS = {
    EXPLICIT: Backend(
        "bertjax.model.attention:attention",
        "the formula, in float32, step by step",
        dropout=True, maps=True, square=True,
    ),
    DENSE: Backend(
        "bertjax.kernels.dense:attention",
        "the formula, tuned: divided after the product, narrow operands",
        dropout=True, narrows=True, square=True,
    ),
    "xla": Backend(
        "bertjax.kernels.library:xla",
        "jax.nn.dot_product_attention, as XLA compiles it",
        square=True,
    ),
    "cudnn": Backend(
        "bertjax.kernels.library:cudnn",
        "cuDNN's fused kernel; heads larger than 128 from Hopper on",
        platforms=("gpu",), dtypes=("bfloat16", "float16"), head_sizes=(8, 256),
    ),
    "blockwise": Backend(
        "bertjax.kernels.blockwise:attention",
        "memory linear in the length",
        skips=True,
    ),
    "splash": Backend(
        "bertjax.kernels.splash:attention",
        "jax's TPU kernel, memory linear in the length",
        platforms=("tpu",), skips=True, interpreted=True,
    ),
}  # fmt: skip
NAMES = tuple(BACKENDS)
CHOICES = (AUTO, *NAMES)
# Of the operands of all matrix products, those of attention among them.
DTYPES = (AUTO, "float32", "bfloat16", "float16")
# What runs a whole model: jax a model directory, with these backends; onnxruntime an exported one.
JAX, ONNXRUNTIME = "jax", "onnxruntime"
ENGINES = (JAX, ONNXRUNTIME)


def choose_backend(name: str, need: Need) -> str:
    """Returns the backend of a name, checked; `auto` takes the one that fits the need best.

    `auto` is explicit where probabilities are read or edited, in rows of more than `LONGEST_DENSE`
    tokens a backend that makes no map of every pair (the device's own before the one that runs
    everywhere), and otherwise dense.

    Args:
        name: one of `CHOICES`.
        need: what is asked of it.

    Raises:
        UserError: it is unknown, or cannot do what is asked.
    """
    able = [other for other, backend in BACKENDS.items() if not backend.objection(need)]
    if name == AUTO:
        long = [other for other in able if not BACKENDS[other].square]
        if need.length > LONGEST_DENSE and long:
            return min(long, key=lambda other: len(BACKENDS[other].platforms))
        return DENSE if DENSE in able else EXPLICIT
    if name not in BACKENDS:
        raise UserError(f"attention={name!r} is not one of {', '.join(CHOICES)}")
    objection = BACKENDS[name].objection(need)
    if objection:
        way_out = f"choose {', '.join([AUTO, *able])}"
        if need.dropout and not BACKENDS[name].dropout:
            way_out += ", or pass --model.attention_probs_dropout_prob 0"
        raise UserError(f"attention={name} {objection}; {way_out}")
    return name
