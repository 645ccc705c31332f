"""One server with a tiny model of every head, for all tests that only ask it."""

import pytest

from tests.serving.running import running
from tests.serving.served_models import load_heads


@pytest.fixture(scope="session")
def every_head(tmp_path_factory):
    """Its address and the `Server`; texts have 16 tokens at most, calls eight texts."""
    models = load_heads(tmp_path_factory.mktemp("heads"), max_position_embeddings=16)
    with running(models, max_batch_tokens=16, max_client_batch_size=8) as (address, server):
        yield address, server
