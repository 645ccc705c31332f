"""How many texts a second an exported model answers, in float32 and in eight bits, beside jax.

    python benchmarks/bench_export.py --model DIR --texts FILE [--lengths 16 128] [--batches 1 32]

Texts are paragraphs of the file, cut to the same number of tokens, so that none computes padding.
Everybody is asked for a vector of each text alone, on all cores. Conformance first: the vectors of
each are compared with those of jax in float32. Then rounds in which each works once, one after the
other, in an order that turns; a figure is the median over the rounds, and a ratio the median of the
ratios of the same round.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bertjax
from bertjax.architectures import BODY
from bertjax.exporting.answers import answering
from bertjax.exporting.export import choose_vectors, export
from bertjax.exporting.quality import Gate
from bertjax.interop.signature import (
    ATTENTION_MASK,
    INPUT_IDS,
    INT8_NAME,
    ONNX_NAME,
    SENTENCE,
    TOKEN_TYPE_IDS,
    input_names,
)
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.text.workers import count_cores

# Least cosines to jax in float32. Eight bits depend on the batch.
LEAST_COSINES = {
    "jax float32": 1 - 1e-6,
    "jax bfloat16": 0.999,
    "onnxruntime float32": 1 - 1e-6,
    "onnxruntime int8": 0.9,
}
REFERENCE = "jax float32"

Inputs = dict[str, np.ndarray]
Answer = Callable[[Inputs], np.ndarray]


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="DIR", required=True, help="model directory")
    parser.add_argument("--texts", metavar="FILE", type=Path, required=True, help="text, UTF-8")
    for name, values, what in (
        ("lengths", [16, 128], "tokens a text"),
        ("batches", [1, 32], "texts a call"),
    ):
        said = f"{what} (default: {' '.join(map(str, values))})"
        parser.add_argument(f"--{name}", type=int, nargs="+", default=values, help=said)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.4, help="of each a round (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if min(options.rounds, *options.lengths, *options.batches) < 1 or options.seconds <= 0:
        raise UserError("--rounds, --lengths, --batches and --seconds must be above 0")
    paragraphs = [line for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        model, figures = bertjax.load(options.model, BODY), []
        answers = prepare(model, paragraphs[:1], Path(folder) / "exported")
        for length in options.lengths:
            rows = make_rows(model, paragraphs, length, max(options.batches))
            for batch in options.batches:
                inputs = make_inputs(model, rows[:batch])
                measured = measure(answers, inputs, options.rounds, options.seconds)
                figures.append({"tokens": length, "texts": batch, "peers": measured})
    print(to_json(figures) if options.json else describe(figures))


def prepare(model: bertjax.Model, check: list[str], folder: Path) -> dict[str, Answer]:
    """Functions of inputs by name that return a vector of each text, by what computes them."""
    steps = choose_vectors(model)
    gate = Gate([(text, text) for text in check], most_changed=1, least_cosine=-1)
    export(model, folder, steps=steps, gate=gate)  # says what is missing
    import onnxruntime

    def of_jax(dtype: str) -> Answer:
        own = model.replace(module=model.module.clone(dtype=jnp.dtype(dtype)))
        answer = answering(own, steps)
        compiled = jax.jit(lambda params, inputs: answer(params, inputs)[SENTENCE])
        return lambda inputs: np.asarray(compiled(own.params, inputs))

    def of_onnx(file: str) -> Answer:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count_cores()
        session = onnxruntime.InferenceSession(
            folder / file, options, providers=["CPUExecutionProvider"]
        )

        def answer(inputs: Inputs) -> np.ndarray:
            given = {name: values.astype(np.int64) for name, values in inputs.items()}
            [vectors] = session.run([SENTENCE], given)
            return vectors

        return answer

    return {
        REFERENCE: of_jax("float32"),
        "jax bfloat16": of_jax("bfloat16"),
        "onnxruntime float32": of_onnx(ONNX_NAME),
        "onnxruntime int8": of_onnx(INT8_NAME),
    }


def make_rows(
    model: bertjax.Model, paragraphs: list[str], length: int, rows: int
) -> list[list[int]]:
    """So many texts of the length, special tokens included."""
    tokenizer, longest = model.tokenizer, model.config.max_length
    if not 3 <= length <= longest:
        raise UserError(f"--lengths {length} must be between 3 and the model's {longest}")
    encoded = (tokenizer.encode_batch([text])[0] for text in paragraphs)
    long = (ids[: length - 2] for ids in encoded if len(ids) >= length - 2)
    found = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in itertools.islice(long, rows)]
    if len(found) < rows:
        raise UserError(
            f"--texts: {len(found)} paragraphs have {length} tokens, and --batches asks for {rows}"
        )
    return found


def make_inputs(model: bertjax.Model, rows: list[list[int]]) -> Inputs:
    """What all of them are given."""
    ids = np.array(rows, np.int32)
    every = {INPUT_IDS: ids, ATTENTION_MASK: ids * 0 + 1, TOKEN_TYPE_IDS: ids * 0}
    return {name: every[name] for name in input_names(model.config)}


def measure(
    answers: dict[str, Answer], inputs: Inputs, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Texts a second of each, and its rate as a multiple of jax's in float32 in the same round."""
    expected, calls, cosines = answers[REFERENCE](inputs), {}, {}
    for name, answer in answers.items():
        cosines[name] = least_cosine(answer(inputs), expected)
        if not cosines[name] >= LEAST_COSINES[name]:
            raise SystemExit(f"conformance: {name}: a vector has a cosine of {cosines[name]}")
        one = min(time_calls(answer, inputs, 1) for _ in range(3))
        calls[name] = max(1, round(seconds / one))
    names, times = list(answers), {name: [] for name in answers}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(time_calls(answers[name], inputs, calls[name]) / calls[name])
    texts = len(expected)
    return {
        name: {
            "texts a second": texts / statistics.median(own),
            f"times {REFERENCE}": statistics.median(
                base / one for base, one in zip(times[REFERENCE], own, strict=True)
            ),
            "least cosine": cosines[name],
        }
        for name, own in times.items()
    }


def time_calls(answer: Answer, inputs: Inputs, calls: int) -> float:
    """Seconds of so many calls."""
    started = time.perf_counter()
    for _ in range(calls):
        answer(inputs)
    return time.perf_counter() - started


def least_cosine(actual: np.ndarray, expected: np.ndarray) -> float:
    """The least cosine of a row of one to the same row of the other."""
    both = [np.asarray(one, np.float64) for one in (actual, expected)]
    products = (both[0] * both[1]).sum(axis=-1)
    return float((products / np.prod([np.linalg.norm(one, axis=-1) for one in both], axis=0)).min())


def describe(figures: list[dict[str, Any]]) -> str:
    """The table in Markdown: texts a second, and times jax in float32."""
    names = list(figures[0]["peers"])
    lines = [f"| texts | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for figure in figures:
        cells = [
            f"{one['texts a second']:,.0f} ({one[f'times {REFERENCE}']:.2f})"
            for one in figure["peers"].values()
        ]
        what = f"{figure['texts']} of {figure['tokens']} tokens"
        lines.append(f"| {what} | {' | '.join(cells)} |")
    least = {
        name: min(figure["peers"][name]["least cosine"] for figure in figures) for name in names
    }
    said = ", ".join(f"{name} {cosine:.7f}" for name, cosine in least.items())
    return "\n".join([*lines, "", f"Least cosine to {REFERENCE}: {said}"])


if __name__ == "__main__":
    program(main)()
