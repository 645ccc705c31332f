"""The model and the masking of the tests of the engine, which a mesh of eight divides."""

from tests.training.conftest import even_config, even_model, half, vocabulary  # noqa: F401
