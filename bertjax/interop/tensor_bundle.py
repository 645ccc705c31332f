"""TensorFlow's checkpoints, `PREFIX.index` and `PREFIX.data-00000-of-00001`, read without it.

The index is a table of sorted keys as LevelDB's: blocks of entries whose keys share a prefix with
the one before, each with a checksum, found by a footer. The first entry, with the empty key, is
about the whole; the others say where a tensor is in the files of data.

Source: TensorFlow, core/util/tensor_bundle, core/lib/io (format.cc, block.cc, table_builder.cc),
core/protobuf/tensor_bundle.proto.
"""

import math
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bertjax.interop.crc32c import masked_crc32c
from bertjax.program.errors import UserError

INDEX_SUFFIX = ".index"
# The key of the graph of Python objects in a checkpoint of TensorFlow 2's `tf.train.Checkpoint`.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

_FOOTER_BYTES, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # after a block: how it is compressed, its checksum
# Beyond what any checkpoint of an encoder has. What shares its beginning with the key before takes
# few bytes in the file, and all of them in memory.
_MOST_INDEX_BYTES, _MOST_TENSORS, _LONGEST_KEY, _MOST_AXES = 2**26, 100_000, 1024, 8
# Source: TensorFlow, core/framework/types.proto.
_DTYPES: dict[int, Any] = {
    1: np.float32, 2: np.float64, 14: ml_dtypes.bfloat16, 19: np.float16,
    3: np.int32, 4: np.uint8, 6: np.int8, 9: np.int64, 10: np.bool_,
}  # fmt: skip
_STRING = 7


class Entry(NamedTuple):
    """Where a tensor is, and what.

    Attributes:
        dtype: a number of TensorFlow's `DataType`.
        shape: of the tensor.
        shard: the number of its file.
        offset, size: in bytes.
        checksum: as `masked_crc32c`.
        is_partitioned: it is stored as slices, under other keys.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_partitioned: bool


class Bundle(NamedTuple):
    """A checkpoint whose index is read.

    Attributes:
        prefix: what the names of its files begin with.
        shards: how many files of data there are.
        entries: of its tensors, by their names.
    """

    prefix: Path
    shards: int
    entries: dict[str, Entry]


class _DamagedError(ValueError):
    """The bytes are not what the format says."""


def read_bundle(prefix: Path) -> Bundle:
    """Reads the index of a checkpoint; the checksum of every block is checked.

    Args:
        prefix: of its files, without `.index`.

    Raises:
        UserError: there is none, it is damaged, or it is of another kind.
    """
    file = Path(f"{prefix}{INDEX_SUFFIX}")
    try:
        if file.stat().st_size > _MOST_INDEX_BYTES:
            raise _DamagedError(f"it has more than {_MOST_INDEX_BYTES >> 20} MB")
        entries = {}
        for number, (key, value) in enumerate(_read_table(memoryview(file.read_bytes()))):
            if number > _MOST_TENSORS:
                raise _DamagedError(f"it lists more than {_MOST_TENSORS:,} tensors")
            entries[key] = value
        header = entries.pop(b"", None)
        if header is None:
            raise _DamagedError("it has no header")
        shards, is_big_endian = _read_header(header)
        if is_big_endian:
            raise UserError(
                f"{file}: written on a big-endian machine, which is not read; write it again on"
                " another"
            )
        return Bundle(
            prefix,
            shards,
            {
                key.decode(): _read_entry(value)
                for key, value in entries.items()
                if not key.startswith(b"\0")  # a slice; its tensor is listed as partitioned
            },
        )
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a checkpoint is named without its suffix") from None
    except (_DamagedError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: damaged or cut short, or not the index of a TensorFlow checkpoint ({error});"
            " fetch or write it again"
        ) from None


def read_tensors(bundle: Bundle, names: Collection[str]) -> dict[str, np.ndarray]:
    """Returns tensors, mapped from the files of data once their checksums are checked.

    Args:
        bundle: of `read_bundle`.
        names: of the tensors.

    Raises:
        UserError: a file is missing or too short, a tensor is damaged, partitioned, or not of
            numbers.
    """
    files: dict[int, np.ndarray] = {}
    return {name: _read_tensor(bundle, name, files) for name in names}


def data_file(bundle: Bundle, name: str) -> Path:
    """Returns the file of data that a tensor is in."""
    shard = bundle.entries[name].shard
    return Path(f"{bundle.prefix}.data-{shard:05}-of-{bundle.shards:05}")


def _read_tensor(bundle: Bundle, name: str, files: dict[int, np.ndarray]) -> np.ndarray:
    entry, file = bundle.entries[name], data_file(bundle, name)
    if entry.is_partitioned:
        raise UserError(
            f"{file}: tensor {name} is partitioned, stored in slices, which is not read; write the"
            " checkpoint again without a partitioner"
        )
    if entry.dtype not in _DTYPES:
        what = "strings" if entry.dtype == _STRING else f"TensorFlow's type number {entry.dtype}"
        raise UserError(f"{file}: tensor {name} is of {what}, not of numbers")
    dtype = np.dtype(_DTYPES[entry.dtype])
    if entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise UserError(
            f"{file}: tensor {name} {list(entry.shape)} of {dtype.name} has {entry.size:,} bytes:"
            " the index is damaged; fetch or write the checkpoint again"
        )
    if entry.shard not in files:
        try:
            files[entry.shard] = np.memmap(file, np.uint8, "r")
        except FileNotFoundError:
            raise UserError(
                f"{file}: missing, though {bundle.prefix.name}{INDEX_SUFFIX} lists it; fetch the"
                " checkpoint again"
            ) from None
        except ValueError:  # an empty file
            files[entry.shard] = np.zeros(0, np.uint8)
    stored = files[entry.shard][entry.offset : entry.offset + entry.size]
    if stored.size != entry.size:
        raise UserError(
            f"{file}: cut short: tensor {name} ends at byte {entry.offset + entry.size:,}, the file"
            f" has {files[entry.shard].size:,}; fetch it again"
        )
    if masked_crc32c(stored) != entry.checksum:
        raise UserError(
            f"{file}: damaged: the bytes of tensor {name} have another checksum than the index"
            " says; fetch it again"
        )
    return np.frombuffer(stored, dtype.newbyteorder("<")).reshape(entry.shape)


# -------------------------------------------------------------------- the table


def _read_table(index: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yields the table's keys and values in order."""
    if len(index) < _FOOTER_BYTES:
        raise _DamagedError("it is shorter than a footer")
    footer = index[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise _DamagedError("its last bytes are not those of a table")
    handle = _Bytes(footer[:-8])
    handle.varint(), handle.varint()  # the block of metadata, which is empty
    last = None
    for _, block in _read_block(index, handle.varint(), handle.varint()):
        place = _Bytes(memoryview(block))
        for key, value in _read_block(index, place.varint(), place.varint()):
            if last is not None and key <= last:
                raise _DamagedError("its keys are not in order")
            last = key
            yield key, value


def _read_block(index: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block."""
    end = offset + size
    if end + _TRAILER_BYTES > len(index) - _FOOTER_BYTES:
        raise _DamagedError("a block ends behind the end of the file")
    compression, checksum = struct.unpack("<BI", index[end : end + _TRAILER_BYTES])
    if masked_crc32c(index[offset : end + 1]) != checksum:
        raise _DamagedError("a block has another checksum than the file says")
    if compression:
        raise _DamagedError(
            "a block is compressed, which TensorFlow does not do unless it is told to"
        )
    block = index[offset:end]
    # Its end lists where keys are whole, for a search, and how many of these places there are.
    restarts = 4 * (1 + (struct.unpack("<I", block[-4:])[0] if size >= 4 else size))
    if restarts > size:
        raise _DamagedError("a block is shorter than its list of places")
    entries, key = _Bytes(block[: size - restarts]), b""
    while entries.left:
        shared, own, value = entries.varint(), entries.varint(), entries.varint()
        if shared > len(key) or shared + own > _LONGEST_KEY:
            raise _DamagedError("a key is longer than a name, or than what it shares")
        key = key[:shared] + entries.take(own)
        yield key, entries.take(value)


class _Bytes:
    """Bytes that are read from their beginning to their end."""

    def __init__(self, content: memoryview) -> None:
        self.left = content

    def take(self, size: int) -> bytes:
        if size > len(self.left):
            raise _DamagedError("a field ends behind its message")
        taken, self.left = bytes(self.left[:size]), self.left[size:]
        return taken

    def varint(self) -> int:
        """Returns a number that is stored in groups of 7 bits, the lowest first."""
        number = 0
        for group in range(10):
            [byte] = self.take(1)
            number |= (byte & 0x7F) << 7 * group
            if byte < 0x80:
                return number
        raise _DamagedError("a number has more than 64 bits")


# -------------------------------------------------------------------- the messages


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yields number and value of the fields of a protobuf message: a whole number, or bytes."""
    if not isinstance(message, bytes):
        raise _DamagedError("a number where a message belongs")
    reader = _Bytes(memoryview(message))
    while reader.left:
        tag = reader.varint()
        match tag & 7:
            case 0:
                yield tag >> 3, reader.varint()
            case 2:
                yield tag >> 3, reader.take(reader.varint())
            case 5:
                yield tag >> 3, struct.unpack("<I", reader.take(4))[0]
            case 1:
                yield tag >> 3, struct.unpack("<Q", reader.take(8))[0]
            case kind:
                raise _DamagedError(f"a field of unknown kind {kind}")


def _read_header(message: bytes) -> tuple[int, bool]:
    """Returns the number of files of data, and whether they are big-endian (BundleHeaderProto)."""
    fields = dict(_fields(message))
    return _number(fields.get(1, 0)), bool(fields.get(2, 0))


def _read_entry(message: bytes) -> Entry:
    """Reads a BundleEntryProto."""
    fields = {2: b""} | dict(_fields(message))
    return Entry(
        _number(fields.get(1, 0)),
        _read_shape(fields[2]),
        *(_number(fields.get(number, 0)) for number in (3, 4, 5, 6)),
        is_partitioned=7 in fields,
    )


def _read_shape(message: Any) -> tuple[int, ...]:
    """Reads a TensorShapeProto."""
    sizes = [dict(_fields(size)).get(1, 0) for number, size in _fields(message) if number == 2]
    if len(sizes) > _MOST_AXES:
        raise _DamagedError(f"a tensor has {len(sizes)} axes")
    return tuple(map(_number, sizes))


def _number(value: Any) -> int:
    if not isinstance(value, int) or value >= 2**63:
        raise _DamagedError("a size is negative, or no number")
    return value
