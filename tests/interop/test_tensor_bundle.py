"""TensorFlow's bundles: what TensorFlow wrote, and what no reader should believe."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.record_writer import masked_crc32c

from bertjax.interop.tensor_bundle import read_bundle, read_tensors
from bertjax.program.errors import UserError
from tests.interop.make_google_checkpoints import FOLDER, value_of

NAME = "bert_model.ckpt"


@pytest.fixture
def prefix(tmp_path):
    """A copy of TensorFlow's checkpoint to spoil."""
    for file in FOLDER.glob(f"{NAME}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / NAME


def varint(number):
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def field(number, value):
    """A field of a protobuf message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(dtype=1, shape=(2, 3), shard=0, offset=0, size=24, checksum=0, more=b""):
    shape = b"".join(field(2, field(1, axis)) for axis in shape)
    message = field(1, dtype) + field(2, shape) + field(3, shard) + field(4, offset)
    return message + field(5, size) + varint(6 << 3 | 5) + struct.pack("<I", checksum) + more


def block(pairs, compression=0):
    """A block whose keys share nothing, and its trailer."""
    content = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    ) + struct.pack("<II", 0, 1)
    kind = bytes([compression])
    return content + kind + struct.pack("<I", masked_crc32c(content + kind))


def table(*blocks):
    """A whole index file of these blocks."""
    content, handles = b"", []
    for one in blocks:
        handles.append(varint(len(content)) + varint(len(one) - 5))
        content += one
    index = block((bytes([255, number]), handle) for number, handle in enumerate(handles))
    footer = varint(0) + varint(0) + varint(len(content)) + varint(len(index) - 5)
    return content + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


HEADER = (b"", field(1, 1) + field(3, field(1, 1)))


def write(folder, index, data=b""):
    (folder / f"{NAME}.index").write_bytes(index)
    (folder / f"{NAME}.data-00000-of-00001").write_bytes(data)
    return folder / NAME


def test_tensors_are_those_that_tensorflow_wrote():
    bundle = read_bundle(FOLDER / NAME)
    learned = [name for name in bundle.entries if "adam" not in name and name != "global_step"]
    assert len(learned) == 62
    for name, array in read_tensors(bundle, learned).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, value_of(name, array.shape), err_msg=name)
    [step] = read_tensors(bundle, ["global_step"]).values()
    assert (step.shape, step.dtype, int(step)) == ((), np.int64, 0)


def test_index_of_several_blocks_and_shards(tmp_path):
    first, second = np.arange(6, dtype="<f2"), np.arange(6, dtype="<f8")
    one = entry(19, (2, 3), 0, 0, 12, masked_crc32c(first.tobytes()))
    other = entry(2, (3, 2), 1, 8, 48, masked_crc32c(second.tobytes()))
    header = (b"", field(1, 2))
    prefix = write(tmp_path, table(block([header, (b"a", one)]), block([(b"b", other)])))
    (tmp_path / f"{NAME}.data-00000-of-00002").write_bytes(first.tobytes())
    (tmp_path / f"{NAME}.data-00001-of-00002").write_bytes(bytes(8) + second.tobytes())
    arrays = read_tensors(read_bundle(prefix), ["a", "b"])
    np.testing.assert_array_equal(arrays["a"], first.reshape(2, 3))
    np.testing.assert_array_equal(arrays["b"], second.reshape(3, 2))


def test_every_damaged_byte_of_an_index_is_found(prefix):
    file = Path(f"{prefix}.index")
    whole = file.read_bytes()
    for place in (*range(0, len(whole) - 48, 61), len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged or cut short, or not the index"):
            read_bundle(prefix)
    for size in (0, 5, 47, 48, 3000, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match="damaged or cut short"):
            read_bundle(prefix)


def test_damaged_and_short_data_are_found(prefix):
    file = Path(f"{prefix}.data-00000-of-00001")
    whole, bundle = file.read_bytes(), read_bundle(prefix)
    last = max(bundle.entries, key=lambda name: bundle.entries[name].offset)
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"cut short: tensor {last} ends at byte 27,920, the file"):
        read_tensors(bundle, [last])
    file.write_bytes(whole[:-1] + b"\x40")
    with pytest.raises(UserError, match=f"damaged: the bytes of tensor {last} have another check"):
        read_tensors(bundle, [last])
    file.write_bytes(b"")
    with pytest.raises(UserError, match="cut short"):
        read_tensors(bundle, [last])
    file.unlink()
    with pytest.raises(UserError, match=r"missing, though bert_model\.ckpt\.index lists it"):
        read_tensors(bundle, [last])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (table(block([HEADER, (b"a", entry())], compression=1)), "a block is compressed"),
        (table(block([(b"", field(1, 1) + field(2, 1))])), "on a big-endian machine"),
        (table(block([(b"a", entry())])), "it has no header"),
        (table(block([HEADER, (b"b", entry()), (b"a", entry())])), "keys are not in order"),
        (table(block([HEADER, (b"a", entry()), (b"a", entry())])), "keys are not in order"),
        (table(block([HEADER, (b"a" * 2000, entry())])), "a key is longer than a name"),
        (table(block([HEADER, (b"a", field(2, 7))])), "a number where a message belongs"),
        (table(block([HEADER, (b"a", entry(offset=2**63))])), "a size is negative"),
        (table(block([HEADER, (b"a", entry(shape=[1] * 40))])), "a tensor has 40 axes"),
        (table(block([HEADER, (b"a", b"\x0b")])), "a field of unknown kind 3"),
        (table(block([HEADER, (b"a", b"\x0a\x7f")])), "a field ends behind its message"),
        (table(block([HEADER, (b"a", b"\x08" + b"\xff" * 11)])), "more than 64 bits"),
        (table(block([HEADER, (b"\xff", entry())])), "can't decode byte 0xff"),
        (table(struct.pack("<I", 2**31) + bytes(5)), "another checksum"),
        (bytes(100), "its last bytes are not those of a table"),
    ],
)
def test_hostile_indexes_are_refused(tmp_path, index, message):
    with pytest.raises(UserError, match=message):
        read_bundle(write(tmp_path, index))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (entry(dtype=7), "tensor a is of strings, not of numbers"),
        (entry(dtype=8), "TensorFlow's type number 8"),
        (entry(size=20), r"tensor a \[2, 3\] of float32 has 20 bytes: the index is damaged"),
        (entry(shape=(2**40, 2**22), size=24), "the index is damaged"),
        (entry(shape=(2**40,), size=2**42), "cut short"),
        (entry(offset=2**62), "cut short"),
        (entry(shard=9), "missing, though"),
        (entry(more=field(7, b"")), "tensor a is partitioned"),
        (entry(checksum=1), "have another checksum than the index says"),
    ],
)
def test_hostile_tensors_are_refused(tmp_path, described, message):
    prefix = write(tmp_path, table(block([HEADER, (b"a", described)])), bytes(24))
    with pytest.raises(UserError, match=message):
        read_tensors(read_bundle(prefix), ["a"])


def test_many_tensors_of_few_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bertjax.interop.tensor_bundle._MOST_TENSORS", 5)
    pairs = [HEADER, *((b"%03d" % number, entry()) for number in range(6))]
    with pytest.raises(UserError, match="lists more than 5 tensors"):
        read_bundle(write(tmp_path, table(block(pairs))))
    monkeypatch.setattr("bertjax.interop.tensor_bundle._MOST_INDEX_BYTES", 90)
    with pytest.raises(UserError, match="it has more than 0 MB"):
        read_bundle(tmp_path / NAME)
