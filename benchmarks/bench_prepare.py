"""The rate of `bertjax prepare` against that of the bare `tokenizers` on the same text and cores.

    python benchmarks/bench_prepare.py --input TEXT... [--tokenizer DIR] [--workers 2] [--repeats 5]

`bare` is one call of `encode_batch` on all documents, with as many threads as workers: reading the
files, starting Python and loading the tokenizer are not in its time. `prepare` is the whole
program: start, reading, cleaning, duplicates, splits, sentences, ids, pairs, packing, writing. Both
run in turn, so that whatever else the machine does hits both. Before the figures it is checked that
the ids of both are the same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bertjax.program.strict_json import to_json
from bertjax.text.readers import ReaderConfig, list_sources, read_documents
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer

# In a process of its own, because the library counts its threads once, at the first use.
BARE = """
import json, sys, time, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
texts = json.load(open(sys.argv[2]))
started = time.perf_counter()
tokenizer.encode_batch(texts, add_special_tokens=False)
print(time.perf_counter() - started)
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--input", nargs="+", required=True, help="text files, as for bertjax prepare"
    )
    parser.add_argument("--tokenizer", help="a tokenizer's directory; without it one is made")
    parser.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer to make")
    parser.add_argument("--workers", type=int, default=2, help="processes and threads")
    parser.add_argument("--repeats", type=int, default=5, help="how often both are measured")
    parser.add_argument("--max-length", type=int, default=128, help="tokens in a row")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()

    config = ReaderConfig(arguments.input)
    texts = [
        document.text
        for source in list_sources(config)
        for document in read_documents(source, config, sys.stderr.write)
    ]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        if arguments.tokenizer:
            tokenizer = load_tokenizer(arguments.tokenizer)
        else:
            tokenizer = train_tokenizer(texts, VocabularyConfig(vocab_size=arguments.vocab_size))
        tokenizer.save(directory / "tokenizer")
        (directory / "texts.json").write_text(to_json(texts), encoding="utf-8")
        check_ids(tokenizer, texts)
        runs = []
        for repeat in range(arguments.repeats):
            bare = measure_bare(directory, arguments.workers)
            whole = measure_prepare(directory, arguments)
            runs.append({"bare_seconds": bare, "prepare_seconds": whole, "ratio": bare / whole})
            print(f"run {repeat + 1}: bare {bare:.2f} s, prepare {whole:.2f} s", file=sys.stderr)
    characters = sum(map(len, texts))
    result = {
        "documents": len(texts),
        "characters": characters,
        "workers": arguments.workers,
        "bare_characters_per_second": characters / median(runs, "bare_seconds"),
        "prepare_characters_per_second": characters / median(runs, "prepare_seconds"),
        "median_ratio": median(runs, "ratio"),
        "runs": runs,
    }
    print(to_json(result, indent=2) if arguments.json else describe(result))


def check_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Ends the program when the remembered words give other ids than the library."""
    some = texts[:200]
    expected = tokenizer.library.encode_batch(some, add_special_tokens=False)
    for text, ids, encoding in zip(some, tokenizer.encode_batch(some), expected, strict=True):
        if ids.tolist() != encoding.ids:
            sys.exit(f"the ids differ from the library's for {text[:80]!r}...")


def measure_bare(directory: Path, threads: int) -> float:
    """Seconds of one `encode_batch` of all texts."""
    command = [sys.executable, "-c", BARE, directory / "tokenizer/tokenizer.json"]
    environment = os.environ | {
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
    }
    done = subprocess.run(
        [*command, directory / "texts.json"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def measure_prepare(directory: Path, arguments: argparse.Namespace) -> float:
    """Seconds of the whole program, start included."""
    command = [sys.executable, "-m", "train.prepare", "--input", *arguments.input]
    command += ["--tokenizer", directory / "tokenizer", "--output", directory / "prepared"]
    command += ["--max_length", str(arguments.max_length), "--workers", str(arguments.workers)]
    started = time.perf_counter()
    subprocess.run(
        [*command, "--overwrite", "true"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.perf_counter() - started


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(run[name] for run in runs)


def describe(result: dict) -> str:
    """The table."""
    seconds = {name: median(result["runs"], f"{name}_seconds") for name in ("bare", "prepare")}
    lines = [
        f"{result['documents']:,} documents, {result['characters']:,} characters,"
        f" {result['workers']} workers, {len(result['runs'])} runs; medians",
        f"{'':<28}{'seconds':>9}{'characters/s':>15}",
    ]
    for name, title in (("bare", "tokenizers.encode_batch"), ("prepare", "bertjax prepare")):
        rate = result[f"{name}_characters_per_second"]
        lines.append(f"{title:<28}{seconds[name]:>9.2f}{rate:>15,.0f}")
    lines.append(f"{'ratio':<28}{result['median_ratio']:>9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
