"""What a run reports: metrics.jsonl, TensorBoard, a step's work, the machine's rate."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from bertjax.config import BertConfig
from bertjax.kernels.backends import BACKENDS
from bertjax.program.outputs import write_whole
from bertjax.program.strict_json import to_json
from bertjax.training.processes import is_first
from bertjax.training.sharding import AXES


class MetricsWriter:
    """Appends to `metrics.jsonl` (one JSON object a line) and to TensorBoard's event files.

    Of several processes the first alone does; in the others nothing comes of it.

    Everything in a line but its `timing` is a function of config, data and seed: a run that was
    killed and resumed writes the same lines as one that was not.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        """Opens the files; lines of steps after `first_step`, left by a run that was killed, go."""
        self._writes = is_first()
        if not self._writes:
            return
        from tensorboardX import SummaryWriter  # slow to import

        self._path = directory / "metrics.jsonl"
        if self._path.exists():
            kept = [line for line in read_metrics(self._path) if line["step"] <= first_step]
            write_whole(self._path, "".join(to_json(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=first_step + 1)

    def write(
        self, step: int, split: str, values: Mapping[str, float], timing: Mapping[str, float]
    ) -> None:
        """Writes one line: `{"step", "split", values..., "timing": {...}}`.

        Numbers that are not finite become null.
        """
        if not self._writes:
            return
        line = {"step": step, "split": split, **values, "timing": timing}
        self._file.write(to_json(line) + "\n")
        self._file.flush()
        for name, value in {**values, **timing}.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Closes both."""
        if not self._writes:
            return
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`, none without one; leaves out a last one cut short."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def count_matmul_flops(
    config: BertConfig,
    rows: int,
    length: int,
    masked_slots: int,
    examples: int,
    attention: str,
    judged: int = 0,
) -> int:
    """Counts the operations of the matrix products of a training step on `rows` rows.

    A product of [a, b] and [b, c] is 2abc. The backward pass has two products for each of the
    forward pass. Embedding look-ups, softmax, normalisation and the optimizer are not counted, and
    what remat computes again is not either. Of layers with a window all pairs of tokens count, or
    those within it where the attention leaves out the others.

    Args:
        config: the model.
        rows: B.
        length: T.
        masked_slots: P.
        examples: K; 0 where nothing is asked of whole examples.
        attention: a key of `kernels.backends.BACKENDS`.
        judged: the tokens of all rows that a discriminator says of whether they are replaced.
    """
    width, inner = config.hidden_size, config.intermediate_size
    # That of all heads together; not the hidden size where heads were taken out of the tensors.
    of_heads = config.num_attention_heads * config.head_size
    tokens = rows * length
    of_feed_forward = 3 if config.NORMALIZES_FIRST else 2  # the third is the gate
    projections = tokens * (4 * width * of_heads + of_feed_forward * width * inner)
    pairs = rows * _count_pairs(config, length, attention)
    encoder = config.num_hidden_layers * projections + 2 * pairs * of_heads
    of_words = config.embedding_size
    embeddings = tokens * of_words * width * config.projects_embeddings
    mlm_head = rows * masked_slots * (width * of_words + of_words * config.vocab_size)
    pooler_and_nsp = rows * examples * (width * width + 2 * width)
    replaced_head = judged * (width * width + width)
    return 3 * 2 * (embeddings + encoder + mlm_head + pooler_and_nsp + replaced_head)


def _count_pairs(config: BertConfig, length: int, attention: str) -> int:
    """Counts the pairs of tokens of a row that attention is computed of, in all layers."""
    every = near = length**2
    if config.window is not None and BACKENDS[attention].skips:
        reach = min(config.window, length - 1)
        near = length * (2 * reach + 1) - reach * (reach + 1)  # the row's ends see less
    return sum(near if local else every for local in config.local_layers)


def measure_matmul_rate(mesh: Mesh, dtype: Any, size: int = 2048, repeats: int = 5) -> float:
    """Returns the rate of square matrix products on all devices of the mesh together, in FLOP/s.

    It takes about a second. Virtual CPU devices share the cores, which the sum over devices takes
    into account by itself.

    Args:
        mesh: the devices; each multiplies matrices of its own.
        dtype: of the matrices; the sums are in float32 or wider.
        size: their side.
        repeats: measurements, of which the fastest counts, as other work on the machine only slows
            them; CPU devices share them out, down to one.
    """
    devices = mesh.devices.size
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    matrices = draw_matrices(mesh, dtype, size)
    wide = jnp.promote_types(dtype, jnp.float32)
    precision = "highest" if jnp.dtype(dtype) == wide else None  # as `model.products` has them
    multiply = jax.jit(
        lambda a: jnp.einsum(
            "zij,zjk->zik", a, a, precision=precision, preferred_element_type=wide
        ),
        in_shardings=sharding,
        out_shardings=sharding,
    )
    multiply(matrices).block_until_ready()
    if mesh.devices.flat[0].platform == "cpu":
        repeats = max(1, repeats // devices)  # as many in every process, as all take part in each
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(matrices).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return devices * 2 * size**3 / min(seconds)


def draw_matrices(mesh: Mesh, dtype: Any, size: int) -> Float[Array, "devices size size"]:
    """Returns a matrix on every device, of numbers as a run has them.

    Of ones a chip has less to switch, and is faster than it ever is in a run.
    """
    shape, sharding = (mesh.devices.size, size, size), NamedSharding(mesh, PartitionSpec(AXES))
    draw = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), shape, dtype), out_shardings=sharding
    )
    return draw()
