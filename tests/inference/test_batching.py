"""One batcher: order, bounded compilations and memory, and padding that changes nothing."""

import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.inference.batches import Batching, run
from bertjax.inference.embedding import Embedder
from bertjax.inference.shapes import Shapes
from bertjax.model.bert import BertModel
from bertjax.text.framing import TokenSequence
from bertjax.training.compilations import count_compilations
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.parity.random_models import draw_parameters

CONFIG = BertConfig(
    vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=12, max_position_embeddings=40, type_vocab_size=2,
)  # fmt: skip


def draw_texts(count, longest=40, seed=0):
    """Ids of texts of any lengths, in no order."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest + 1, count)
    return [random.integers(1, 50, length).astype(np.int32) for length in lengths]


def make_rows(texts, places, shape):
    ids = np.full(shape[:2], 49, np.int32)  # padding that would be seen
    seen = np.zeros(shape[:2], np.int32)
    for text, row in zip(texts, places.row, strict=True):
        ids[row, : len(text)], seen[row, : len(text)] = text, 1
    return ids, seen


@jax.jit
def sum_up(params, batch):
    ids, seen = batch
    return (ids * seen).sum(axis=1) * params, jnp.cumsum(ids * seen, axis=1)


def a_text_a_row(window=1 << 16, mesh=None):
    def take(output, text, place):
        return output[0][place.row], output[1][place.row, : len(text)].copy()

    shapes = Shapes(40, lambda length: 500 // length, mesh=mesh)
    return Batching(shapes, len, make_rows, take, window=window)


def check(texts, outputs, factor=1):
    for text, (total, sums) in zip(texts, outputs, strict=True):
        assert total == text.sum() * factor
        np.testing.assert_array_equal(sums, np.cumsum(text))


@pytest.mark.parametrize("window", [1, 300, 1 << 16])
def test_outputs_come_in_the_order_of_the_items(window):
    texts, done = draw_texts(100), []
    check(texts, run(sum_up, 2, texts, a_text_a_row(window), progress=done.append), 2)
    assert sum(done) == 100
    assert list(run(sum_up, 2, [], a_text_a_row())) == []


def test_items_are_taken_as_outputs_are_asked_for():
    taken = []

    def stream():
        for text in draw_texts(2_000):
            taken.append(len(text))
            yield text

    outputs = run(sum_up, 1, stream(), a_text_a_row(window=1000))
    assert taken == []
    for number in range(400):
        next(outputs)
        # A window of 1,000 tokens, and the item that showed that it is full.
        assert sum(taken[number:]) <= 1000 + 40
    assert len(taken) > 400


def test_an_output_that_was_taken_is_not_kept():
    class Output:
        pass

    batching = a_text_a_row()._replace(take=lambda *place: Output())
    outputs = run(sum_up, 1, draw_texts(40), batching)
    taken = []
    for _ in range(40):
        assert [one() for one in taken] == [None] * len(taken)
        taken.append(weakref.ref(next(outputs)))


def make_embedder(mesh=None):
    body = BertModel(CONFIG, pooling=False)
    params = draw_parameters(CONFIG, "BertModel")["bert"]
    return Embedder(body, params, Pad(), mesh=mesh)


class Pad:
    pad_id = 0


def frame(texts):
    return [TokenSequence(text, len(text)) for text in texts]


def test_compilations_are_at_most_the_shapes():
    embedder = make_embedder()
    plain = draw_texts(10_000)
    texts = frame(plain)
    shapes = embedder.shapes
    assert len(shapes) < 15
    embedder.embed_sequences(texts[:1])  # what jax compiles beside
    with count_compilations() as counted:
        for start, stop in itertools.pairwise([0, 1, 20, 99, 10_000]):
            embedder.embed_sequences(texts[start:stop])
    assert 2 < counted.total <= len(shapes)
    rows = a_text_a_row()
    compiled = jax.jit(lambda params, batch: batch[0].sum(axis=1)[:, None])
    for start, stop in itertools.pairwise([0, 1, 20, 99, 10_000]):
        batching = rows._replace(take=lambda output, text, place: output[place.row])
        assert len([*run(compiled, 0, plain[start:stop], batching)]) == stop - start
    assert 3 < compiled._cache_size() <= len(rows.shapes)


@pytest.fixture(scope="module")
def embedder():
    return make_embedder()


def test_neighbours_and_padding_change_nothing(embedder):
    texts = frame(draw_texts(500, seed=1))
    together = embedder.embed_sequences(texts)
    for number in (0, 7, 499, *np.argsort([len(text.token_ids) for text in texts])[[0, -1]]):
        alone = embedder.embed_sequences([texts[number]])
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)
    assert np.abs(together - together[0]).max(axis=1)[1:].min() > 1e-3


def test_devices_of_a_mesh_give_the_same(embedder):
    texts = frame(draw_texts(60, seed=2))
    mesh = make_mesh(MeshConfig(), jax.devices()[:8])
    divided = make_embedder(mesh)
    np.testing.assert_allclose(
        divided.embed_sequences(texts), embedder.embed_sequences(texts), atol=1e-5
    )
    plain = draw_texts(60)
    seen = []

    def remember(params, batch):
        rows = batch[0].sharding.shard_shape(batch[0].shape)[0]
        seen.append((len(batch[0]) // rows, params.sharding.device_set))
        return sum_up(params, batch)

    check(plain, run(remember, np.float32(1), plain, a_text_a_row(mesh=mesh), mesh=mesh))
    assert seen
    assert all(parts == 8 and len(of_params) == 8 for parts, of_params in seen)


def test_parameters_are_transferred_once():
    weights = np.ones(3, np.float32)
    met = []

    def forward(params, batch):
        met.append(params)
        return sum_up(params[0], batch)

    texts = draw_texts(200)
    check(texts, run(forward, weights, texts, a_text_a_row()))
    assert len(met) > 3
    assert isinstance(met[0], jax.Array)
    assert all(one is met[0] for one in met)
    # What is on the device stays where it is.
    check(texts, run(forward, met[0], texts, a_text_a_row()))
    assert met[-1].unsafe_buffer_pointer() == met[0].unsafe_buffer_pointer()
