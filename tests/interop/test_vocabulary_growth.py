"""Embeddings for new tokens: the mean of those of their pieces, and all else as it was."""

import dataclasses

import jax
import numpy as np

from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.interop.vocabulary_growth import grow_vocabulary
from bertjax.model.bert import BertForPreTraining
from tests.interop.test_hub import TINY

PIECES = {99: (5, 7, 8), 100: (11,), 101: (12, 13)}


def test_new_token_is_as_likely_as_the_mean_of_its_pieces_says(config, params, batch, forward):
    numpy_params = jax.tree.map(np.asarray, params)
    larger, grown = grow_vocabulary(config, numpy_params, PIECES)
    assert larger == dataclasses.replace(config, vocab_size=102)
    table, old = (one["bert"]["embeddings"]["word_embeddings"] for one in (grown, numpy_params))
    np.testing.assert_array_equal(table[:99], old)
    np.testing.assert_allclose(table[99], (old[5] + old[7] + old[8]) / 3, rtol=1e-5)
    bias, old = (one["mlm_head"]["bias"] for one in (grown, numpy_params))
    np.testing.assert_allclose(bias[101], (old[12] + old[13]) / 2, rtol=1e-5)
    run = jax.jit(BertForPreTraining(larger).apply)
    before, after = forward(params, *batch[:5]), run({"params": grown}, *batch[:5])
    np.testing.assert_allclose(after.mlm_logits[..., :99], before.mlm_logits, atol=1e-4)
    for id, pieces in PIECES.items():
        mean = np.asarray(before.mlm_logits)[..., list(pieces)].mean(-1)
        np.testing.assert_allclose(after.mlm_logits[..., id], mean, atol=1e-4)
    np.testing.assert_allclose(after.nsp_logits, before.nsp_logits, atol=1e-4)


def test_rows_that_pad_the_table_are_used_first(config, params):
    numpy_params = jax.tree.map(np.asarray, params)
    larger, grown = grow_vocabulary(config, numpy_params, {97: (5, 7), 98: (6,)})
    assert larger == config
    table, old = (one["bert"]["embeddings"]["word_embeddings"] for one in (grown, numpy_params))
    np.testing.assert_array_equal(table[98], old[6])
    np.testing.assert_array_equal(table[:97], old[:97])


def test_what_is_not_of_a_token_is_kept_to_the_bit(tmp_path):
    loaded = load_model_directory(TINY)
    pieces = {loaded.config.vocab_size: (9,)}
    larger, grown = grow_vocabulary(loaded.config, loaded.params, pieces)
    save_model_directory(tmp_path / "model", larger, grown, TINY, loaded.architecture)
    again = load_model_directory(tmp_path / "model")
    flat = dict(jax.tree_util.tree_leaves_with_path(loaded.params))
    changed = set()
    for path, value in jax.tree_util.tree_leaves_with_path(again.params):
        if value.shape == flat[path].shape:
            np.testing.assert_array_equal(value, flat[path])
        else:
            changed.add(jax.tree_util.keystr(path))
    assert changed == {"['bert']['embeddings']['word_embeddings']", "['mlm_head']['bias']"}
    assert again.config == larger
