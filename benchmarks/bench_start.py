"""How long a command takes to its answer, with and without compiled programs on disk.

    python benchmarks/bench_start.py --vocabulary vocab.txt     # a BERT-size vocab.txt

Makes a model of MiniLM's shape (6 layers, 384 wide, random weights, the vocabulary's tokens) and
runs `bertjax fill-mask` and `bertjax embed` on it in processes of their own, in alternating rounds:
with no compiled programs kept (off), with a new and empty folder for them (first), and with the
same folder again (second). Conformance first: all of them print the same answers. The medians count
the whole process, the start of Python included. With --unread, files of the environment and the
model are dropped from the system's cache before each `first`, as far as no other process uses them.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.model.bert import BertForMaskedLM
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.text.tokenizer import load_tokenizer

TEXT = "The capital of France is [MASK]."
COMMANDS = {"fill-mask": [TEXT, "--json"], "embed": ["--input", "{texts}", "--output", "{vectors}"]}
# Variables that would change where compiled programs lie.
UNSET = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XDG_CACHE_HOME")


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", metavar="FILE", required=True, help="a vocab.txt")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--unread", action="store_true", help="drop files from the system's cache")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.rounds < 1:
        raise UserError("--rounds must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(options.vocabulary), Path(folder) / "model")
        figures = {name: measure(name, model, options) for name in COMMANDS}
    if options.json:
        print(to_json(figures))
    else:
        for name, seconds in figures.items():
            said = ", ".join(f"{kind} {value:.2f} s" for kind, value in seconds.items())
            print(f"{name:10} {said}; second / first {seconds['second'] / seconds['first']:.2f}")


def make_model(vocabulary: Path, path: Path) -> Path:
    """A model directory of MiniLM's shape."""
    tokens = load_tokenizer(vocabulary).vocab_size
    config = BertConfig(
        vocab_size=tokens,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    initialize = jax.jit(BertForMaskedLM(config).init)
    params = initialize(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    tokenizer = path.with_name("tokenizer")
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_bytes(vocabulary.read_bytes())
    save_model_directory(path, config, jax.device_get(params), tokenizer, "BertForMaskedLM")
    return path


def measure(name: str, model: Path, options: argparse.Namespace) -> dict[str, float]:
    """The median seconds of every kind of start."""
    texts, vectors = model.with_name("texts.txt"), model.with_name("vectors.npy")
    texts.write_text(TEXT + "\n", encoding="utf-8")
    words = [word.format(texts=texts, vectors=vectors) for word in COMMANDS[name]]
    command = [sys.executable, "-m", "bertjax", name, "--model", str(model), *words]
    seconds: dict[str, list[float]] = {"off": [], "first": [], "second": []}
    answers = set()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=model.parent) as kept:
            for kind, times in seconds.items():
                setting = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
                if kind != "off":
                    setting = {"XDG_CACHE_HOME": kept}
                if kind == "first" and options.unread:
                    drop_from_cache(Path(sys.prefix), model)
                started = time.perf_counter()
                answer = run(command, setting)
                times.append(time.perf_counter() - started)
                answers.add(vectors.read_bytes() if name == "embed" else answer)
            if not list(Path(kept).rglob("*-cache")):
                raise SystemExit(f"conformance: {name} kept no compiled program")
    if len(answers) > 1:
        raise SystemExit(f"conformance: {name} gave {len(answers)} different answers")
    return {kind: statistics.median(times) for kind, times in seconds.items()}


def run(command: list[str], setting: dict[str, str]) -> bytes:
    """What the command prints."""
    kept = {key: value for key, value in os.environ.items() if key not in UNSET}
    return subprocess.run(
        command, env=kept | setting, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    ).stdout


def drop_from_cache(*folders: Path) -> None:
    """Asks the system to forget what it has read of the files."""
    for folder in folders:
        for file in folder.rglob("*"):
            with contextlib.suppress(OSError):
                descriptor = os.open(file, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


if __name__ == "__main__":
    program(main)()
