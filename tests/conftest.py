"""For every test: eight CPU devices, every shape annotation a check, the real data where it is."""

import os
from pathlib import Path

# The proofs are of numbers, so every machine computes them the same way; JAX_PLATFORMS overrides.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jaxtyping import install_import_hook

# Not by XLA_FLAGS, which the programs that tests start as processes would inherit.
jax.config.update("jax_num_cpu_devices", 8)

# Before the first import of any of them: shape annotations of these packages are checked at calls.
install_import_hook(
    ["bertjax.types", "bertjax.model", "bertjax.objectives", "bertjax.training"],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data that lies beside the checkout; tests that need it are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    return folder
