"""What one training step costs beside its matrix products alone.

    python benchmarks/bench_step.py                 # base size, 8 rows of 128 tokens, dropout on
    python benchmarks/bench_step.py --profile       # and where the time goes
    python benchmarks/bench_step.py --compile       # compile time of 4 and of 24 layers
    python benchmarks/bench_step.py --size mini --widths 128 192 256    # float32 beside bfloat16
    python benchmarks/bench_step.py --family modernbert --size ettin-17m --length 8192 --rows 1 \
        --attention blockwise                       # local layers, at a length where they matter

Conformance first: the step must bring the loss down on its one batch. Then rounds of one
measurement of the machine's matrix-product rate and one of the step, alternating, so that a noisy
machine disturbs both; the ratio is the median over the rounds.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from random_rows import random_batch
from step_profile import profile_step

from bertjax.architectures import find_architecture
from bertjax.config import BertConfig
from bertjax.families.registry import FAMILIES
from bertjax.kernels.backends import CHOICES
from bertjax.model.encoder import REMAT_POLICIES
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.strict_json import to_json
from bertjax.training.execution import attention_backend, remat_policy
from bertjax.training.metrics import count_matmul_flops, measure_matmul_rate
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.state import describe_state, new_state
from bertjax.training.steps import lower_step, make_train_step
from bertjax.types import RowBatch

EXAMPLES_A_ROW = 2
LEARNING_RATE = 1e-4


def main() -> int:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--family", choices=FAMILIES, default="bert", help="of the model (default: bert)"
    )
    parser.add_argument("--size", default="base", help="model, one of the family's (default: base)")
    parser.add_argument(
        "--global-every",
        metavar="N",
        type=int,
        help="of a modernbert: every N-th layer is global; 1 = all (default: the size's)",
    )
    parser.add_argument(
        "--attention", choices=CHOICES, default="auto", help="backend (default: auto)"
    )
    parser.add_argument(
        "--layers",
        metavar="L",
        nargs=2,
        type=int,
        default=[4, 24],
        help="layers of the two models that --compile compares (default: 4 24)",
    )
    parser.add_argument(
        "--widths",
        metavar="D",
        nargs="+",
        type=int,
        default=[],
        help="compare float32 with bfloat16 instead, in models so wide, with heads of 64 and an"
        " inner width of 4 D (default: do not)",
    )
    parser.add_argument("--rows", type=int, default=8, help="rows a step (default: 8)")
    parser.add_argument("--length", type=int, default=128, help="tokens a row (default: 128)")
    parser.add_argument("--vocab-size", type=int, default=30522, help="tokens (default: 30522)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements (default: 5)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--remat", choices=["auto", *REMAT_POLICIES], default="auto")
    parser.add_argument(
        "--profile", action="store_true", help="trace a step, too, by kind of operation"
    )
    parser.add_argument("--compile", action="store_true", help="measure compilation instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if min(options.rows, options.length // 8, options.rounds) < 1:
        raise UserError("--rows and --rounds must be at least 1, --length at least 8")
    if options.rounds < 2 and not options.compile:
        raise UserError("--rounds must be at least 2: the loss has to fall from one to the next")
    if any(width < 64 or width % 64 for width in options.widths):
        raise UserError("--widths must be multiples of 64, as a head is 64 wide")
    measure = measure_compilation if options.compile else measure_step
    figures = (measure_dtypes if options.widths else measure)(options)
    if options.json:
        print(to_json(figures))
    else:
        for name, value in figures.items():
            print(f"{name:38} {value:.4g}" if isinstance(value, float) else f"{name:38} {value}")
    return 0


def measure_step(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, seconds of its matrix products at the measured rate, and their ratio."""
    config = make_config(options)
    mesh = make_mesh(MeshConfig())
    dtype = jnp.dtype(options.dtype)
    masking = MaskingConfig()
    flops = count_matmul_flops(
        config,
        options.rows,
        options.length,
        masking.slots(options.length),
        EXAMPLES_A_ROW,
        attention_backend(options.attention, config, dtype, options.length),
    )
    take_step, state, batch = compile_step(config, options, mesh, dtype)
    temporary = take_step.memory_analysis().temp_size_in_bytes

    losses, steps, products = [], [], []
    for _ in range(options.rounds):
        products.append(flops / measure_matmul_rate(mesh, dtype))
        started = time.perf_counter()
        state, report = take_step(state, batch, jnp.float32(1))
        losses.append(float(report.loss))
        steps.append(time.perf_counter() - started)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"conformance: the loss did not fall on one batch: {losses}")
    kinds = {}
    if options.profile:

        def run() -> None:
            nonlocal state
            state, report = take_step(state, batch, jnp.float32(1))
            report.loss.block_until_ready()

        kinds = profile_step(take_step, run, steps=3)
    ratios = [step / product for step, product in zip(steps, products, strict=True)]
    return {
        "model": f"{options.family} {options.size}",
        "rows": f"{options.rows} x {options.length} tokens, {options.dtype}",
        "remat": remat_policy(options.remat),
        "attention": options.attention,
        "temporary memory, MiB": temporary / 2**20,
        "device": jax.devices()[0].device_kind,
        "matrix-product FLOP a step": float(flops),
        "matrix-product rate, GFLOP/s": flops / statistics.median(products) / 1e9,
        "matrix products alone, s": statistics.median(products),
        "training step, s": statistics.median(steps),
        "step / matrix products, median": statistics.median(ratios),
        "step / matrix products, least": min(ratios),
        "tokens a second": options.rows * options.length / statistics.median(steps),
        **{f"thread time of {kind}, ms": milliseconds for kind, milliseconds in kinds.items()},
    }


def measure_dtypes(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of the seconds of a step in each dtype by width, a step in turn."""
    mesh, figures = make_mesh(MeshConfig()), {}
    for width in options.widths:
        config = make_config(
            options,
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
        compiled = {
            dtype: compile_step(config, options, mesh, jnp.dtype(dtype))
            for dtype in ("float32", "bfloat16")
        }
        seconds: dict[str, list[float]] = {dtype: [] for dtype in compiled}
        for _ in range(options.rounds):
            for dtype, (take_step, state, batch) in compiled.items():
                started = time.perf_counter()
                state, report = take_step(state, batch, jnp.float32(1))
                report.loss.block_until_ready()
                seconds[dtype].append(time.perf_counter() - started)
                compiled[dtype] = take_step, state, batch
        wide, narrow = (statistics.median(times) for times in seconds.values())
        ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
        figures |= {
            f"{width} wide, float32, s": wide,
            f"{width} wide, bfloat16, s": narrow,
            f"{width} wide, float32 / bfloat16, median": statistics.median(ratios),
        }
    return figures


def measure_compilation(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of compilation of the same step with few and with many layers, alternating."""
    mesh = make_mesh(MeshConfig())
    seconds: dict[int, list[float]] = {layers: [] for layers in options.layers}
    for _ in range(options.rounds):
        for layers, times in seconds.items():
            config = make_config(
                options,
                vocab_size=999,
                hidden_size=64,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=256,
            )
            jax.clear_caches()
            started = time.perf_counter()
            compile_step(config, options, mesh, jnp.dtype(options.dtype), create=False)
            times.append(time.perf_counter() - started)
    (few, least), (many, most) = (
        (layers, statistics.median(times)) for layers, times in seconds.items()
    )
    return {
        f"{few} layers, s": least,
        f"{many} layers, s": most,
        f"{many} layers / {few} layers": most / least,
    }


def make_config(options: argparse.Namespace, **fields: Any) -> BertConfig:
    """The config of the model, with any field overridden; [PAD] is 0, as in the drawn rows."""
    make = FAMILIES[options.family].config
    if options.global_every is not None:
        fields["global_attn_every_n_layers"] = options.global_every
    fields = {"vocab_size": options.vocab_size, "pad_token_id": 0, **fields}
    fields["max_position_embeddings"] = options.length + make(**fields).first_position
    return make.of_size(options.size, **fields)


def compile_step(
    config: BertConfig, options: argparse.Namespace, mesh: Any, dtype: Any, create: bool = True
) -> tuple[Any, Any, RowBatch]:
    """The step, its state (its shapes, if not to be created) and a batch on the device."""
    module = find_architecture(config.pretraining, config).module
    model = module(config, dtype, remat_policy(options.remat), options.attention)
    optimizer = make_optimizer(OptimizerConfig())
    vocabulary = Vocabulary(
        config.vocab_size, 4, [0, 1, 2, 3, 4], np.zeros(config.vocab_size, bool)
    )
    objective = PretrainingObjective(model, MaskingConfig(), vocabulary, seed=0)
    step = make_train_step(
        objective, optimizer, lambda clock: LEARNING_RATE * clock, seed=0, clip_norm=1.0
    )
    batch = place_rows(random_batch(config.vocab_size, options.rows, options.length), mesh)
    make_state = new_state if create else describe_state
    state = make_state(model, optimizer, mesh, jax.random.key(0), objective.terms)
    return lower_step(step, state, batch, mesh).compile(), state, batch


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
