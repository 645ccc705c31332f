"""The tiny model, and its captures, once for the tests that export them."""

import pytest

from tests.analysis.exported import capture_texts, load_tiny_body


@pytest.fixture(scope="package")
def body():
    return load_tiny_body()


@pytest.fixture(scope="package")
def captures():
    return capture_texts()
