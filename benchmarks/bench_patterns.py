"""What the figures of attention cost: memory by length, and time on real sentences.

    python benchmarks/bench_patterns.py --memory
    python benchmarks/bench_patterns.py --model DIR --treebank G.conllu [--sentences 200]

Memory is what the compiled program asks for beside its arguments, of a small model (2 layers, 4
heads, hidden size 64) with random weights, with whole maps and blockwise. Conformance first: the
blockwise figures must equal those of whole maps.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.analysis.capture.encoding import EncodedText, encode_texts
from bertjax.analysis.heads.blockwise_patterns import sum_batch
from bertjax.analysis.heads.classes import CLASSES
from bertjax.analysis.heads.patterns import classify_heads, measure_patterns, patterns_with_company
from bertjax.analysis.heads.redundancy import measure_redundancy, sum_divergences_blockwise
from bertjax.analysis.heads.targets import TokenMarks
from bertjax.config import BertConfig
from bertjax.kernels.blockwise import BLOCK
from bertjax.loaded import load
from bertjax.model.bert import BertModel
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

LENGTHS = (512, 1024, 2048, 4096)
MEBIBYTE = 1 << 20
TOLERANCE = 1e-5


def main() -> int:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true", help="measure memory by length")
    parser.add_argument("--model", type=Path, help="model directory to measure time with")
    parser.add_argument("--treebank", type=Path, help="CoNLL-U file; its sentences are the texts")
    parser.add_argument("--sentences", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not options.memory and (options.model is None or options.treebank is None):
        raise UserError("give --memory, or --model and --treebank")
    figures = measure_memory() if options.memory else measure_time(options)
    print(to_json(figures) if options.json else describe(figures))
    return 0


def measure_memory() -> dict[str, dict[str, float]]:
    """MiB of the compiled programs, by length."""
    config = BertConfig(
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=max(LENGTHS),
    )
    model = BertModel(config, pooling=False)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

    def trace(params: Any, inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, trace=True).trace.probs

    found = {}
    for length in LENGTHS:
        inputs = tuple(jax.ShapeDtypeStruct((1, length), jnp.int32) for _ in range(3))
        kinds = [jnp.int32] * 4 + [jnp.bool_] * 3
        marks = TokenMarks(*(jax.ShapeDtypeStruct((1, length), kind) for kind in kinds))
        programs = {
            "whole maps": jax.jit(trace).lower(params, inputs),
            "blockwise figures": sum_batch.lower(model, BLOCK, params, (inputs, marks)),
            "blockwise redundancy": sum_divergences_blockwise.lower(model, params, inputs),
        }
        found[f"{length} tokens, MiB"] = {
            name: _measure_bytes(lowered) / MEBIBYTE for name, lowered in programs.items()
        }
    return found


def _measure_bytes(lowered: Any) -> int:
    analysis = lowered.compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def measure_time(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of each measurement, compilation included, and what it finds."""
    body = load(options.model, "BertModel")
    texts = encode_texts(
        body.tokenizer,
        read_sentences(options.treebank)[: options.sentences],
        body.config.max_position_embeddings,
        too_long="windows",
    )
    check_blockwise(body, texts[:20])
    calls = {
        "patterns": lambda: measure_patterns(body, texts),
        "patterns, blockwise": lambda: measure_patterns(body, texts, blockwise=True),
        "patterns with company": lambda: patterns_with_company(body, texts),
        "redundancy": lambda: measure_redundancy(body, texts),
        "redundancy, blockwise": lambda: measure_redundancy(body, texts, blockwise=True),
    }
    seconds, results = {}, {}
    for name, call in calls.items():
        seconds[name], results[name] = _time(call)
    classes = classify_heads(results["patterns with company"])
    texts_and_tokens = {
        "texts": len(texts),
        "tokens": sum(len(text.token_ids) for text in texts),
    }
    counts = np.bincount(classes.reshape(-1), minlength=len(CLASSES)).tolist()
    return {
        "of": texts_and_tokens,
        "seconds": seconds,
        "heads": dict(zip(CLASSES, counts, strict=True)),
    }


def check_blockwise(body: Any, texts: list[EncodedText]) -> None:
    """Ends the program when blockwise figures are others than those of whole maps."""
    both = [measure_patterns(body, texts, blockwise=blockwise) for blockwise in (False, True)]
    for name in both[0]:
        whole, ours = (
            tally[name].sums.sum(axis=0) / np.maximum(tally[name].counts.sum(axis=0), 1)
            for tally in both
        )
        if not np.allclose(whole, ours, rtol=TOLERANCE, atol=TOLERANCE):
            raise SystemExit(f"{name}: blockwise differs by {np.abs(whole - ours).max():.2g}")


def read_sentences(path: Path) -> list[str]:
    """The texts of a treebank's sentences."""
    marker = "# text = "
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[len(marker) :] for line in lines if line.startswith(marker)]


def _time(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def describe(figures: dict[str, dict[str, float]]) -> str:
    """The table."""
    lines = []
    for title, parts in figures.items():
        lines.append(title)
        lines += [f"    {name:<24}{number:>10,.1f}" for name, number in parts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    program(main)()
