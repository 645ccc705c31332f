"""Texts captured with the tiny model, and their records as files of every format hold them."""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.capture.selection import TEXT_FIELDS
from bertjax.analysis.capture.shards import Shards
from bertjax.loaded import load

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
TEXTS = ["this is what they had", "a", ("it was", "the cat in"), "Ωmega is in."]
FORMATS = {"npz": "x.npz", "parquet": "x.parquet", "arrow": "x.arrow", "shards": "x"}


@functools.cache
def load_tiny_body():
    return load(TINY, "BertModel")


@functools.cache
def capture_texts():
    """The captures of `TEXTS`."""
    body = load_tiny_body()
    return list(capture(body, encode_texts(body.tokenizer, TEXTS, 17), hidden=True, context=True))


def read(path, format):
    """Of every text its fields and arrays by name, in one form for all formats."""
    kinds = ("probs", "hidden", "context")
    if format == "shards":
        for one in Shards(path):
            fields = one.encoded._asdict() | one._asdict()
            yield {name: value for name, value in fields.items() if value is not None}
    elif format == "npz":
        with np.load(path) as arrays:
            for number in range(len(arrays["sources"])):
                ours = [name for name in arrays if name.endswith(f"_{number}")]
                record = {name.removesuffix(f"_{number}"): arrays[name] for name in ours}
                yield record | {
                    "source": arrays["sources"][number],
                    "window": arrays["windows"][number],
                }
    else:
        table = pq.read_table(path) if format == "parquet" else pa.ipc.open_file(path).read_all()
        for record in table.to_pylist():
            for kind in kinds:
                if kind in record:
                    values = table[kind].type.value_type.to_pandas_dtype()
                    shape = record.pop(f"{kind}_shape")
                    record[kind] = np.array(record[kind], values).reshape(shape)
            yield record


def check_same(record, captured):
    for name in (*TEXT_FIELDS, "source", "window"):
        expected = getattr(captured.encoded, name)
        assert np.array_equal(np.asarray(record[name]), np.asarray(expected)), name
    for name in ("probs", "hidden", "context"):
        expected = getattr(captured, name)
        assert (expected is None) == (name not in record)
        if expected is not None:
            assert record[name].dtype == expected.dtype
            np.testing.assert_array_equal(record[name], expected, name)
