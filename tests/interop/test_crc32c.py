"""CRC-32C, against published values and another implementation."""

import numpy as np
import pytest
from tensorboardX.record_writer import masked_crc32c as theirs

from bertjax.interop.crc32c import crc32c, masked_crc32c


# Source: RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_checksums(data, checksum):
    assert crc32c(data) == checksum


@pytest.mark.parametrize("size", [1, 127, 128, 129, 500, 16383, 16384, 16386, 33001])
def test_checksums_of_every_length_equal_those_of_tensorboard(size):
    data = np.random.default_rng(size).bytes(size)
    assert masked_crc32c(data) == masked_crc32c(np.frombuffer(data, "u1")) == theirs(data)
