"""What bench_input.py refuses as the user's mistake, before it measures anything."""

from pathlib import Path

import numpy as np
import pytest

from bertjax.program.entry import program
from tests.prepared_rows import write_rows

WAY = Path(__file__).parents[1]
TINY = Path(__file__).parent / "parity" / "golden" / "tiny_bert"


@pytest.fixture
def bench_input(monkeypatch, capsys):
    """Runs a command line in this process; gives (exit code, stdout, stderr)."""
    monkeypatch.syspath_prepend(WAY / "benchmarks")  # where it finds bench_step
    from benchmarks import bench_input

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bench_input.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            program(bench_input.main)()
        return stopped.value.code, *capsys.readouterr()

    return run


def write_prepared(path, rows):
    """A prepared directory with so many training rows of 7 tokens."""
    write_rows(
        path,
        {
            "train": {
                "token_ids": np.full((rows, 7), 9),
                "token_type_ids": np.zeros((rows, 7)),
                "sequence_ids": np.ones((rows, 7)),
                "position_ids": np.tile(np.arange(7), (rows, 1)),
                "example_starts": np.zeros((rows, 1)),
                "next_sentence_labels": np.full((rows, 1), -1),
            }
        },
        99,
        TINY,
    )
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --data DIR ..., or --masking"),
        (["--data"], "give --data DIR ..., or --masking"),
        (["--masking", "--data", "rows"], "give --data DIR ..., or --masking"),
        (["--masking", "--rounds", "0"], "--rounds and --batch-size must be at least 1"),
        (["--data", "rows", "--batch-size", "5", "0"], "--rounds and --batch-size must be"),
        (["--data", "none"], "none: no such directory; make it again with `bertjax "),
    ],
)
def test_mistake_is_told(bench_input, words, message):
    code, out, err = bench_input(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")


def test_batch_larger_than_any_of_the_data_is_told_before_the_first_is_measured(
    bench_input, tmp_path
):
    large, small = write_prepared(tmp_path / "large", 5), write_prepared(tmp_path / "small", 3)
    code, out, err = bench_input("--data", large, small, "--batch-size", 4, 2)
    assert (code, out) == (2, "")
    assert err == f"error: --batch-size 4 is more than the 3 training rows of {small}\n"
