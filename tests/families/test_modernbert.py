"""ModernBERT: its config in either spelling, its local layers, its rotary positions, its parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.heads.importance import gates_without
from bertjax.analysis.heads.pruning import blank_heads, drop_heads
from bertjax.architectures import find_architecture
from bertjax.families.modernbert import GLOBAL, LOCAL, ModernBertConfig
from bertjax.families.registry import read_config
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.kernels.backends import BACKENDS
from bertjax.model.probe_points import Edit, gate_heads
from bertjax.model.rotary import make_rotations, rotate
from bertjax.program.errors import UserError
from bertjax.training.pretrain_config import ModelConfig, shape_new_model
from tests.families.tiny import tiny_config
from tests.parity.random_models import draw_parameters
from tests.parity.test_golden import GOLDEN

# Layers 0 and 3 are global; tokens of 1 and 2 see 2 tokens to either side.
CONFIG = tiny_config("modernbert", num_hidden_layers=4, local_attention=4, local_rope_theta=100.0)
OLDER = {
    "model_type": "modernbert",
    "num_hidden_layers": 4,
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 5000.0,
    "local_rope_theta": 300.0,
}
KINDS = [GLOBAL, LOCAL, GLOBAL, LOCAL]
BASES = {
    GLOBAL: {"rope_type": "default", "rope_theta": 5000.0},
    LOCAL: {"rope_type": "default", "rope_theta": 300.0},
}
NEWER = {
    "model_type": "modernbert",
    "num_hidden_layers": 4,
    "layer_types": KINDS,
    "rope_parameters": BASES,
}


def model_of(kind="masked-lm", config=CONFIG, **options):
    architecture = find_architecture(kind, config)
    module = architecture.module(config, **options)
    params = jax.tree.map(jnp.asarray, draw_parameters(config, architecture.name))
    return module, {"params": params}


def hidden_of(config, token_ids, *inputs, **options):
    model, params = model_of(config=config, **options)
    return jax.jit(model.apply)(params, token_ids, *inputs).encoder.hidden


def test_both_spellings_are_the_same_config():
    config = read_config(OLDER)
    assert config == read_config(NEWER) == read_config(OLDER | NEWER)
    assert config.local_layers == (False, True, False, True)
    assert config.rotary_bases == (5000, 300)
    written = config.to_dict()
    assert {name: written[name] for name in OLDER | NEWER} == OLDER | NEWER


def test_kinds_of_layers_without_a_step_are_kept_as_they_are():
    config = read_config(NEWER | {"layer_types": [LOCAL, GLOBAL, GLOBAL, LOCAL]})
    assert config.local_layers == (True, False, False, True)
    written = config.to_dict()
    assert "global_attn_every_n_layers" not in written
    assert read_config(written) == config
    assert config.with_layers(2).local_layers == (True, False)
    assert CONFIG.with_layers(2).local_layers == (False, True)


def test_defaults_are_those_of_the_published_model():
    config = read_config({"model_type": "modernbert"})
    assert config == ModernBertConfig()
    assert config.window == 64
    assert [layer for layer, local in enumerate(config.local_layers) if not local] == [
        0, 3, 6, 9, 12, 15, 18, 21,
    ]  # fmt: skip
    assert config.rotary_bases == (160_000, 10_000)


def test_local_base_of_null_is_the_global_one():
    assert read_config(OLDER | {"local_rope_theta": None}).rotary_bases == (5000, 5000)
    bases = BASES | {LOCAL: {"rope_type": "default", "rope_theta": None}}
    config = read_config(NEWER | {"rope_parameters": bases})
    assert config.rotary_bases == (5000, 5000)
    assert read_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_types": [GLOBAL, LOCAL, LOCAL, LOCAL]},
            "layer_types and global_attn_every_n_layers=2 contradict each other, at layer 2",
        ),
        (
            {"rope_parameters": BASES | {GLOBAL: {"rope_theta": 7.0}}},
            "rope_parameters.full_attention.rope_theta=7.0 and global_rope_theta=5000.0 contradict",
        ),
        (
            {"rope_parameters": BASES | {LOCAL: {"rope_theta": 7.0}}},
            "rope_parameters.sliding_attention.rope_theta=7.0 and local_rope_theta=300.0 contra",
        ),
        ({"layer_types": [GLOBAL, LOCAL]}, "layer_types names 2 layers, and num_hidden_layers=4"),
        ({"layer_types": ["linear"] * 4}, "layer_types has linear; bertjax computes full_att"),
        ({"layer_types": 3}, "layer_types=3 must be a list"),
        (
            {"rope_parameters": BASES | {GLOBAL: {"rope_type": "yarn", "rope_theta": 5000.0}}},
            "rope_parameters.full_attention=.*yarn.*is not supported: bertjax computes rotary pos",
        ),
        ({"rope_parameters": [1]}, "rope_parameters=.* must map full_attention and sliding_att"),
        ({"rope_parameters": {GLOBAL: 1}}, "rope_parameters.full_attention=1 must be an object"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling=.* is not supported"),
        ({"hidden_size": 20}, "make heads of 5; .* so that it must be even"),
        ({"local_attention": 1}, "local_attention=1 must be at least 2"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0 must be a whole number"),
        ({"global_rope_theta": 0}, "global_rope_theta=0 must be above 0"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max' is not one of cls, mean"),
        ({"classifier_activation": "elu"}, "classifier_activation='elu' is not one of gelu"),
        ({"mlp_dropout": 1.0}, r"mlp_dropout=1.0 must be in \[0, 1\)"),
    ],
)
def test_config_that_cannot_be_is_refused(changes, message):
    own = {"hidden_size": 32, "num_attention_heads": 4}
    with pytest.raises(UserError, match=message):
        read_config(OLDER | own | changes)


@pytest.mark.parametrize("size", ModernBertConfig.SIZES)
def test_published_sizes_are_there(size):
    config = ModernBertConfig.of_size(size)
    assert config.head_size == 64
    assert config.rotary_bases[1] == (10_000 if "-" not in size else 160_000)


@pytest.mark.parametrize(("family", "named"), [(None, "a bert"), ("albert", "an albert")])
def test_size_of_another_family_is_refused_with_the_one_that_has_it(family, named):
    with pytest.raises(
        UserError, match=f"ettin-17m is a size of modernbert, and the model is {named}: pass model"
    ):
        shape_new_model(ModelConfig(family=family, size="ettin-17m"), 100, {}, 16)


def test_layers_of_a_new_model_are_as_asked_for():
    asked = {"local_attention": 4, "global_attn_every_n_layers": 2}
    shape = shape_new_model(ModelConfig(family="modernbert", **asked), 100, {"pad_token_id": 0}, 16)
    assert (shape.window, shape.local_layers) == (2, (False, True, False, True))
    assert shape.max_length == 16


@pytest.mark.parametrize(
    ("family", "asked", "message"),
    [
        (
            "electra",
            {"local_attention": 4},
            "model.local_attention=4 has no effect: an electra has no such field; leave it out, or"
            " take a model of the family modernbert$",
        ),
        (None, {"global_attn_every_n_layers": 2}, "has no effect: a bert has no such field"),
        ("modernbert", {"local_attention": 30}, "=30 hides nothing in .* or give at most 29$"),
        ("modernbert", {"local_attention": 1}, "local_attention=1 must be at least 2"),
        ("modernbert", {"attention_window": 2}, "attention_window=2 is not supported"),
    ],
)
def test_layers_that_a_new_model_cannot_have_are_refused(family, asked, message):
    with pytest.raises(UserError, match=message):
        shape_new_model(ModelConfig(family=family, **asked), 100, {"pad_token_id": 0}, 16)


def test_longest_window_that_hides_something_is_accepted():
    config = ModelConfig(family="modernbert", local_attention=29)
    assert shape_new_model(config, 100, {"pad_token_id": 0}, 16).window == 14


def test_tokens_of_local_layers_see_so_many_to_either_side():
    model, params = model_of(attention="explicit")
    token_ids = jnp.arange(1, 12)[None]
    probs = model.apply(params, token_ids, trace=("probs",)).encoder.trace.probs
    sees = np.asarray(probs).min(axis=(1, 2)) > 0
    distance = np.abs(np.subtract.outer(np.arange(11), np.arange(11)))
    for layer in (0, 3):
        assert sees[layer].all()
    for layer in (1, 2):
        np.testing.assert_array_equal(sees[layer], distance <= 2)


@pytest.mark.parametrize("kinds", [(LOCAL,) * 4, (GLOBAL,) * 4, (LOCAL, GLOBAL, GLOBAL, LOCAL)])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name not in ("cudnn", "splash")])
def test_backends_compute_the_same(backend, kinds):
    config = dataclasses.replace(CONFIG, layer_types=kinds)
    token_ids = jnp.arange(1, 12)[None]
    expected = hidden_of(config, token_ids, attention="explicit")
    actual = hidden_of(config, token_ids, attention=backend)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    if len(set(kinds)) > 1:  # which layers are local matters
        other = hidden_of(
            dataclasses.replace(config, layer_types=kinds[::-1][1:] + kinds[:1]),
            token_ids,
            attention=backend,
        )
        assert np.abs(other - expected).max() > 1e-2


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padded_and_packed_examples_equal_the_same_alone(pooling):
    config = dataclasses.replace(CONFIG, classifier_pooling=pooling)
    model, params = model_of("sequence", config)
    apply = jax.jit(model.apply)
    first, second = np.arange(1, 10), np.arange(20, 25)
    alone = [apply(params, text[None]).logits[0, 0] for text in (first, second)]
    padded = np.zeros((2, 12), int)
    padded[0, :9], padded[1, :5] = first, second
    np.testing.assert_allclose(apply(params, padded).logits[:, 0], alone, atol=1e-5)

    packed = np.concatenate([first, second, [0]])[None]
    sequence_ids = np.array([[1] * 9 + [2] * 5 + [0]])
    positions = np.concatenate([np.arange(9), np.arange(5), [0]])[None]
    starts = np.array([[0, 9, 0]])
    together = apply(params, packed, 0 * packed, sequence_ids, positions, starts).logits
    np.testing.assert_allclose(together[0, :2], alone, atol=1e-5)
    assert np.isfinite(together).all()


def test_mean_pooling_reads_every_token():
    config = dataclasses.replace(CONFIG, num_hidden_layers=1, layer_types=(LOCAL,))
    for pooling, changes in (("mean", True), ("cls", False)):  # the last token is out of reach
        one = dataclasses.replace(config, classifier_pooling=pooling)
        model, params = model_of("sequence", one)
        logits = model.apply(params, jnp.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]])).logits
        assert bool(np.abs(logits[0] - logits[1]).max() > 1e-4) == changes


def test_product_of_turned_vectors_depends_on_their_distance_alone():
    random = np.random.default_rng(0)
    query, key = random.normal(size=(2, 8)).astype(np.float32)

    def product(at, other):
        [turned_query], [turned_key] = (
            jax.tree.map(
                lambda one: one[0],
                [rotate(jnp.asarray(vector).reshape(1, 1, 1, 8),
                        jax.tree.map(lambda t: t[0], make_rotations(
                            (100.0,), 8, jnp.array([[place]]), jnp.float32)))],
            )
            for vector, place in ((query, at), (key, other))
        )  # fmt: skip
        return float((turned_query * turned_key).sum())

    assert product(3, 5) == pytest.approx(product(13, 15), abs=1e-5)
    assert abs(product(3, 5) - product(3, 6)) > 1e-2
    assert product(4, 4) == pytest.approx(float(query @ key), abs=1e-5)


def test_last_hidden_state_is_normalized_and_can_be_edited_there():
    model, params = model_of("body")
    token_ids = jnp.arange(1, 8)[None]

    def run(**options):
        return model.apply({"params": params["params"]["bert"]}, token_ids, **options)

    plain = run(trace=("embedded", "hidden"))
    np.testing.assert_array_equal(plain.trace.hidden[-1], plain.hidden)
    norm = params["params"]["bert"]["encoder"]["final_layer_norm"]["scale"]
    np.testing.assert_allclose((plain.hidden / norm).mean(-1), 0, atol=1e-5)

    other = np.random.default_rng(1).normal(size=plain.trace.hidden.shape)
    only_last = jnp.zeros((4, 1, 1, 1), bool).at[-1].set(True)
    edited = run(trace=("hidden",), edit={"hidden": Edit(replace=other, where=only_last)})
    np.testing.assert_allclose(edited.hidden, other[-1], atol=1e-6)
    np.testing.assert_array_equal(edited.trace.hidden[:-1], plain.trace.hidden[:-1])

    scaled = run(edit={"hidden": Edit(scale=np.array([1.0, 1.0, 1.0, 2.0])[:, None, None, None])})
    np.testing.assert_allclose(scaled.hidden, 2 * plain.hidden, atol=1e-5)
    second = run(edit={"hidden": Edit(scale=np.array([1.0, 2.0, 1.0, 1.0])[:, None, None, None])})
    assert np.abs(second.hidden - plain.hidden).max() > 1e-3


def test_first_layer_does_not_normalize_its_input():
    model, params = model_of("body")
    body = params["params"]["bert"]
    token_ids = jnp.arange(1, 8)[None]

    def with_scales(layer):
        stack = body["encoder"]["layers"]
        scales = stack["attention_layer_norm"]["scale"].at[layer].multiply(3)
        changed = {**stack, "attention_layer_norm": {"scale": scales}}
        return {**body, "encoder": {**body["encoder"], "layers": changed}}

    plain = model.apply({"params": body}, token_ids).hidden
    np.testing.assert_array_equal(model.apply({"params": with_scales(0)}, token_ids).hidden, plain)
    assert np.abs(model.apply({"params": with_scales(1)}, token_ids).hidden - plain).max() > 1e-3


def test_new_weights_are_drawn_as_published():
    config = dataclasses.replace(
        CONFIG, hidden_size=64, intermediate_size=256, initializer_cutoff_factor=3.0, vocab_size=999
    )
    model, _ = model_of("sequence", config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    stack = params["bert"]["encoder"]["layers"]
    # Of a normal distribution cut at 3 deviations, 0.987 of the deviation is left.
    for kernel, deviation in (
        (params["bert"]["embeddings"]["word_embeddings"], 0.02),
        (stack["attention"]["query"]["kernel"], 0.02),
        (stack["gate"]["kernel"], 0.02),
        (stack["attention"]["output"]["kernel"], 0.02 / 8**0.5),
        (stack["output"]["kernel"], 0.02 / 8**0.5),
        (params["prediction_head"]["dense"]["kernel"], 0.02 / 8**0.5),
        (params["sequence_head"]["dense"]["kernel"], 64**-0.5),
    ):
        spread = np.std(kernel) / deviation
        assert abs(spread - 0.987) < 4 / kernel.size**0.5
        assert np.abs(kernel).max() <= 3.001 * deviation
    assert np.abs(stack["gate"]["kernel"]).max() > 2.2 * 0.02


def test_classifier_of_a_masked_lm_begins_with_its_prediction_head(tmp_path):
    _, params = model_of()
    save_model_directory(
        tmp_path / "m", CONFIG, params["params"], GOLDEN / "tiny_bert", "masked-lm"
    )
    fitted = load_model_directory(tmp_path / "m", "sequence", initialize_missing=jax.random.key(0))
    jax.tree.map(
        np.testing.assert_array_equal,
        fitted.params["prediction_head"],
        params["params"]["prediction_head"],
    )
    assert fitted.params["sequence_head"]["dense"]["kernel"].shape == (32, 2)


def test_decoder_without_bias_goes_out_and_comes_in(tmp_path):
    config = dataclasses.replace(CONFIG, decoder_bias=False)
    model, params = model_of("masked-lm", config)
    assert "mlm_head" not in params["params"]
    model.apply(params, jnp.arange(1, 8)[None])
    save_model_directory(
        tmp_path / "m", config, params["params"], GOLDEN / "tiny_bert", "masked-lm"
    )
    loaded = load_model_directory(tmp_path / "m")
    assert (loaded.config, loaded.architecture) == (config, "ModernBertForMaskedLM")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params["params"])


def test_window_of_berts_own_is_refused():
    with pytest.raises(UserError, match="attention_window=3 is not supported: in a modernbert"):
        dataclasses.replace(CONFIG, attention_window=3)


def test_heads_without_biases_leave_the_tensors():
    model, params = model_of(attention="dense")
    removed = np.array([[0, 1], [1, 2], [2, 0], [3, 3]])
    token_ids = jnp.arange(1, 8)[None]
    edit = gate_heads(gates_without((4, 4), removed))
    expected = model.apply(params, token_ids, edit=edit).logits
    config, smaller = drop_heads(CONFIG, params["params"], removed)
    assert (config.num_attention_heads, config.head_size) == (3, 8)
    actual = model.clone(config=config).apply({"params": smaller}, token_ids).logits
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    blank = blank_heads(params["params"], removed)
    np.testing.assert_allclose(
        model.apply({"params": blank}, token_ids).logits, expected, atol=1e-4
    )
