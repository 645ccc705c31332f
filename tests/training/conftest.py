"""What the tests of the engine share: a model that a mesh of eight divides, its rows, one step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.state import TrainState, empty_window
from bertjax.training.steps import make_train_step
from bertjax.types import RowBatch


@pytest.fixture(scope="session")
def seed():
    return 17


@pytest.fixture(scope="session")
def half():
    """Half of a row's tokens are masked."""
    return MaskingConfig(rate=0.5)


@pytest.fixture(scope="session")
def even_config(config):
    """As `config`, but V=98 and F=38, which 2 divides."""
    return dataclasses.replace(config, vocab_size=98, intermediate_size=38)


@pytest.fixture(scope="session")
def even_model(even_config):
    return BertForPreTraining(even_config)


@pytest.fixture(scope="session")
def even_params(even_model, params):
    """The parameters of `params`, cut or repeated to the even sizes."""
    shapes = jax.eval_shape(even_model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return jax.tree.map(
        lambda x, like: jnp.asarray(np.resize(x, like.shape)), params, shapes["params"]
    )


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary(98, 4, list(range(5)), jnp.zeros(98, bool))


@pytest.fixture(scope="session")
def rows():
    """B=4, T=7, K=2: rows with unlike numbers of tokens to mask and of examples."""
    return RowBatch(
        token_ids=np.array(
            [
                [2, 11, 12, 3, 2, 13, 3],
                [2, 21, 22, 23, 3, 0, 0],
                [2, 31, 30, 32, 33, 34, 3],
                [2, 41, 3, 0, 0, 0, 0],
            ],
            np.uint16,
        ),
        token_type_ids=np.zeros((4, 7), np.uint8),
        sequence_ids=np.array(
            [
                [1, 1, 1, 1, 2, 2, 2],
                [1, 1, 1, 1, 1, 0, 0],
                [1, 1, 1, 1, 1, 1, 1],
                [1, 1, 1, 0, 0, 0, 0],
            ],
            np.uint8,
        ),
        position_ids=np.array(
            [
                [0, 1, 2, 3, 0, 1, 2],
                [0, 1, 2, 3, 4, 0, 0],
                [0, 1, 2, 3, 4, 5, 6],
                [0, 1, 2, 0, 0, 0, 0],
            ],
            np.uint16,
        ),
        example_starts=np.array([[0, 4], [0, 0], [0, 0], [0, 0]], np.int32),
        next_sentence_labels=np.array([[1, 0], [0, -1], [1, -1], [-1, -1]], np.int32),
        row_numbers=np.array([5, 8, 2, 0], np.uint32),
        epochs=np.zeros(4, np.uint32),
    )


@pytest.fixture(scope="session")
def eight_rows(rows):
    return jax.tree.map(lambda x: np.concatenate([x, x]), rows)._replace(
        row_numbers=np.arange(8, dtype=np.uint32)
    )


@pytest.fixture(scope="session")
def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def eight_devices():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.fixture(scope="session")
def start(even_params):
    """A state at step 0 for `optax.scale(-1)`, which moves the parameters against the gradient."""
    zero = jnp.zeros((), jnp.int32)
    optimizer_state = optax.scale(-1.0).init(even_params)
    window = empty_window(("mlm", "nsp"))
    return TrainState(even_params, {}, optimizer_state, zero, zero, zero, window)


@pytest.fixture(scope="session")
def make_step(even_model, half, vocabulary, seed):
    """Compiles a training step of plain gradient descent at a rate of clock / 10, dropout on."""

    def make(**options):
        return jax.jit(
            make_train_step(
                PretrainingObjective(even_model, half, vocabulary, seed),
                optax.scale(-1.0),
                lambda clock: 0.1 * clock,
                seed,
                log_every=3,
                most_skipped=3,
                **options,
            )
        )

    return make


@pytest.fixture(scope="session")
def step(make_step):
    return make_step()
