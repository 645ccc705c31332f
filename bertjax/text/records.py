"""Records from .jsonl, .json, .csv, .tsv, .parquet and data sets of the hub, one at a time.

    read_records(source, config)  -> its records with their places, streamed, in bounded memory

A record is what one row of a table or one JSON object holds: names to values. The documents of
pretraining (`readers`) and the labelled examples of every task are made from the same records.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.json_records import make_record, read_json, read_jsonl
from bertjax.text.record_config import Record, RecordConfig, check_names
from bertjax.text.sources import Source, find_sources
from bertjax.text.tables import read_table

# Bytes. Without a buffer pyarrow reads a whole column of a row group at once.
_PARQUET_BUFFER = 1 << 20


def find_record_files(names: Sequence[str], config: RecordConfig) -> list[Source]:
    """Returns the sources that `names` stand for, of the given format.

    A remembered format applies to files whose names give no format of records.
    """
    if "format" not in config.remembered:
        return find_sources(
            names,
            config.encoding,
            kind=config.format,
            option=config.option("format"),
            prefix=config.option_prefix,
        )
    sources = find_sources(
        names, config.encoding, otherwise=config.format, prefix=config.option_prefix
    )
    return [
        dataclasses.replace(source, kind=config.format) if source.kind == "txt" else source
        for source in sources
    ]


def read_records(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Yields the records of one source in order.

    Args:
        source: A source of any kind but plain text and corpus.
        config: How it is read.
        fields: The fields that every record must have, each with the option that chooses it; from
            Parquet nothing else is read. None: all fields.

    Raises:
        UserError: as soon as the bad place is reached: a record without one of the fields, damaged
            JSON, CSV, Parquet or gzip data, a row with more or fewer columns than the header,
            bytes of another encoding, a line beyond `streams.MAXIMUM_LINE`; columns for a format
            that names its fields itself.
    """
    if source.kind not in _READERS:
        raise UserError(
            f"{source.name}: plain text has no fields; "
            "records come as .jsonl, .json, .csv, .tsv or .parquet"
        )
    if source.kind not in ("csv", "tsv"):
        if config.columns and "columns" not in config.remembered:
            raise UserError(
                f"{source.name}: columns={config.columns} names the columns of .csv and .tsv files "
                f"without a header line; {source.kind} names its fields itself"
            )
        if config.delimiter is not None and "delimiter" not in config.remembered:
            raise UserError(
                f"{source.name}: {config.option('delimiter')} {config.delimiter!r} is for .csv and"
                f" .tsv files, and {source.kind} has no cells; leave it out"
            )
    return _READERS[source.kind](source, config, fields)


def read_whole_records(
    source: Source, config: RecordConfig, fields: Mapping[str, str]
) -> Iterator[Record]:
    """Yields the records with all of their fields, not only the required ones."""
    if source.kind != "parquet":
        yield from read_records(source, config, fields)
        return
    for number, record in enumerate(read_records(source, config)):
        if number == 0:
            check_names(source.name, list(record.values), fields)
        yield record


def _read_parquet(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with streams.open_seekable(source) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=_PARQUET_BUFFER)
            check_names(source.name, table.schema_arrow.names, fields)
            columns = None if fields is None else list(fields)
            number = itertools.count(1)
            # Small batches: a column of long documents must not be loaded whole.
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for values in batch.to_pylist():
                    yield Record(f"{source.name} record {next(number)}", values)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{source.name}: damaged Parquet file ({_first_line(error)})") from None


def _read_dataset(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    """Streams records from the hub; nothing is kept on disk."""
    import datasets

    path, split = source.location.split("@")
    name, *configs = re.fullmatch(r"([^/]+/[^/]+|[^/]+)(?:/(.+))?", path).groups()
    try:
        records = datasets.load_dataset(name, *filter(None, configs), split=split, streaming=True)
        for number, values in enumerate(records, 1):
            yield make_record(f"{source.name} record {number}", values, fields)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source.name}: the data set cannot be read "
            f"({type(error).__name__}: {_first_line(error)}); "
            "check its name and that the hub can be reached, or give files"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0][:200]


_READERS = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_table,
    "tsv": read_table,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
}
