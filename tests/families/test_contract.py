"""What holds of every family that is registered, whichever it is."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.heads.blockwise_patterns import run_layers
from bertjax.analysis.heads.pruning import check_prunable
from bertjax.architectures import ARCHITECTURES, BODY, MASKED_LM, classes_of, find_architecture
from bertjax.config import BertConfig
from bertjax.families.registry import FAMILIES, read_config
from bertjax.interop.huggingface import (
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.interop.tensor_names import flatten, our_shape, rows_of
from bertjax.model.heads import ClassifierHead
from bertjax.program.errors import UserError
from bertjax.training.optimizer import decayed
from bertjax.training.sharding import spec_of
from bertjax.verification.examples import Example, arrange
from bertjax.verification.outputs import quantities, read_answers
from tests.families.tiny import LONGEST, tiny_config, tiny_config_of
from tests.parity.random_models import draw_parameters
from tests.parity.test_golden import GOLDEN

# A tokenizer of 99 tokens, which is any family's here.
TOKENIZER = GOLDEN / "tiny_bert"
# Others are the same model by another name.
OWN_MODELS = [
    name for name, family in FAMILIES.items() if family.config.__base__ in (BertConfig, object)
]
LABELS = ("O", "B-PER", "I-PER")


def labelled(name):
    """The tiny config of a class, and labels where it has them; [PAD] is 0, as the tokenizer's."""
    of_two = ARCHITECTURES[name].kind in ("spans", "sentence-order")
    return tiny_config_of(name, pad_token_id=0, **({} if of_two else {"id2label": LABELS}))


def with_other_values(config):
    """The config with another value in every field that takes any number, and in every switch."""
    changes = {"id2label": LABELS, "problem_type": "multi_label_classification"}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in config.NOT_IN_FILE:
            continue
        if isinstance(value, bool):
            changes[field.name] = not value
        elif isinstance(value, float):
            changes[field.name] = value / 2 + 0.01
    return dataclasses.replace(config, **changes)


def assert_same(actual, expected):
    actual, expected = dict(flatten(actual)), dict(flatten(expected))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_config_goes_out_and_comes_in_field_for_field(family):
    for config in (FAMILIES[family].config(), with_other_values(tiny_config(family))):
        file = json.loads(json.dumps(config.to_dict()))
        assert file["model_type"] == family
        again = read_config(file)
        assert again == config
        assert type(again) is type(config)
        assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_that_the_file_has_not_keep_their_value(family):
    config = tiny_config(family)
    for name in config.NOT_IN_FILE:
        assert config.THEIR_NAMES.get(name, name) not in config.to_dict()
        with pytest.raises(UserError, match=rf"{name}=0.25 is not supported: in a {family} it is"):
            dataclasses.replace(config, **{name: 0.25})


@pytest.mark.parametrize("family", FAMILIES)
def test_values_that_are_not_computed_are_refused(family):
    config = tiny_config(family)
    for name in config.ONLY_VALUES:
        with pytest.raises(UserError, match=f"{name}='another' is not supported"):
            read_config(config.to_dict() | {name: "another"})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_class_goes_out_and_comes_in_to_the_byte(tmp_path, name):
    config, architecture = labelled(name), ARCHITECTURES[name]
    params = draw_parameters(config, name)
    save_model_directory(tmp_path / "model", config, params, TOKENIZER, name)
    loaded = load_model_directory(tmp_path / "model")
    assert (loaded.config, loaded.architecture, loaded.notes) == (config, name, [])
    assert_same(loaded.params, params)
    contents = inspect_model_directory(tmp_path / "model")
    assert (contents.architecture, set(contents.parts)) == (name, set(architecture.parts))
    rows = rows_of(config, architecture.parts)
    unused = sum(row.first_layer * len(row.paths) * config.hidden_size for row in rows)
    assert contents.parameters == sum(value.size for _, value in flatten(params)) - unused

    save_model_directory(tmp_path / "again", config, loaded.params, TOKENIZER, name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()

    if "pooler" in architecture.parts or "pooler" not in classes_of(config)[BODY].parts:
        body = load_model_directory(tmp_path / "model", BODY)
        assert body.architecture == classes_of(config)[BODY].name
        assert_same(body.params, {"bert": params["bert"]})


@pytest.mark.parametrize("family", OWN_MODELS)
def test_masked_lm_is_fitted_to_every_task_with_a_fresh_head(tmp_path, family):
    config = tiny_config(family, pad_token_id=0)
    params = draw_parameters(config, find_architecture(MASKED_LM, config).name)
    save_model_directory(tmp_path / "model", config, params, TOKENIZER, MASKED_LM)
    for kind in ("sequence", "tokens", "spans", "choice"):
        wanted = classes_of(config)[kind]
        changes = {} if kind == "spans" else {"id2label": LABELS}
        fitted = load_model_directory(
            tmp_path / "model", kind, initialize_missing=jax.random.key(0), changes=changes
        )
        assert fitted.architecture == wanted.name
        rows = {
            path: our_shape(row, fitted.config)
            for row in rows_of(fitted.config, wanted.parts)
            for path in row.paths
        }
        assert {path: value.shape for path, value in flatten(fitted.params)} == rows
        kept = {part for part in wanted.parts if part in find_architecture(MASKED_LM, config).parts}
        for part in set(wanted.parts) - kept:
            note = (
                f"{tmp_path / 'model'}: it has no {part}; one is initialised freshly and must be"
                " trained"
            )
            assert note in fitted.notes
        assert fitted.notes[0] == f"{tmp_path / 'model'}: its mlm_head is left out, " + (
            f"{wanted.name} has none"
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_has_its_place_on_a_mesh_and_in_the_optimizer(name):
    config = tiny_config_of(name, classifier_norm="layer")
    params = {
        path: our_shape(row, config)
        for row in rows_of(config, ARCHITECTURES[name].parts)
        for path in row.paths
    }
    for path, shape in params.items():
        spec = spec_of(path)
        assert len(spec) <= len(shape), path
        if path.endswith(("/kernel", "_embeddings")):
            assert "fsdp" in spec, path
    for path, is_decayed in flatten(decayed(to_tree(params))):
        assert is_decayed == path.endswith(("/kernel", "_embeddings")), path


def to_tree(values):
    tree = {}
    for path, value in values.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = np.zeros(value)
    return tree


@pytest.mark.parametrize("family", OWN_MODELS)
def test_examples_alone_padded_and_packed_get_the_same_answers(family):
    config = tiny_config(family, id2label=LABELS)
    name = classes_of(config)["sequence"].name
    params, model = draw_parameters(config, name), ARCHITECTURES[name].module(config)
    random = np.random.default_rng(0)
    words = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    kinds = ((np.arange(7) > 3) & config.takes_pairs).astype(np.int32)
    examples = [Example(random.choice(words, 7).astype(np.int32), kinds) for _ in range(3)]

    @jax.jit
    def run(params, batch):
        return quantities(name, model.apply({"params": params}, *batch))

    alone = arrange(examples, [[0], [1], [2]], 7, padding_seed=0)
    together = arrange(examples, [[2, 0], [1]], LONGEST, padding_seed=1)
    expected, actual = (read_answers(run(params, its.batch), its) for its in (alone, together))
    assert actual.keys() == expected.keys() == {0, 1, 2}
    for number, answers in expected.items():
        assert answers.keys() == {"hidden", "logits"}
        for quantity, values in answers.items():
            np.testing.assert_allclose(actual[number][quantity], values, atol=2e-4)
    assert np.abs(expected[0]["logits"] - expected[1]["logits"]).max() > 1e-2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_inputs_are_given_in_order_or_by_name(name):
    module = ARCHITECTURES[name].module(tiny_config_of(name))
    token_ids, starts = jnp.ones((3, 7), jnp.int32), jnp.zeros((3, 2), jnp.int32)

    def shapes(*inputs, **named):
        return jax.eval_shape(
            lambda: module.init_with_output(jax.random.key(0), token_ids, *inputs, **named)
        )

    in_order = shapes(token_ids, token_ids, token_ids, starts)
    by_name = shapes(sequence_ids=token_ids, example_starts=starts)
    assert jax.tree.map(jnp.shape, in_order) == jax.tree.map(jnp.shape, by_name)


@pytest.mark.parametrize("family", OWN_MODELS)
def test_attention_by_blocks_is_that_of_the_maps(family):
    config = tiny_config(family, num_hidden_layers=3)
    name = classes_of(config)[BODY].name
    params, model = draw_parameters(config, name)["bert"], ARCHITECTURES[name].module(config)
    random = np.random.default_rng(0)
    words = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    token_ids = random.choice(words, (2, 7)).astype(np.int32)
    inputs = token_ids, np.zeros_like(token_ids), np.ones_like(token_ids)

    maps = jax.jit(functools.partial(model.apply, trace=("probs",)))({"params": params}, *inputs)
    by_blocks = jax.jit(lambda *inputs: run_layers(model, *inputs, lambda layer: layer[:3], 4))
    query, key, log_sums = by_blocks(params, inputs)
    scores = np.einsum("lbtnh,lbsnh->lbnts", query, key) / np.sqrt(config.head_size)
    np.testing.assert_allclose(np.exp(scores - log_sums[..., None]), maps.trace.probs, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_body_is_the_same_without_its_pooler(family):
    config = tiny_config(family)
    body = classes_of(config)[BODY]

    def shapes(pooling):
        model = body.module(config, pooling=pooling)
        token_ids = jnp.ones((3, 7), jnp.int32)
        return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), token_ids))

    output, variables = shapes(False)
    assert output.pooled is None
    assert output.hidden.shape == (3, 7, 32)
    assert "pooler" not in variables["params"]
    output, variables = shapes(True)
    assert (
        (output.pooled is not None)
        == ("pooler" in variables["params"])
        == ("pooled" in body.outputs)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_longest_text_and_ids_beyond_the_tables(family):
    config = tiny_config(family)
    assert config.max_length == LONGEST
    ids, places = np.zeros((1, LONGEST), np.int32), np.arange(LONGEST)[None]
    config.check_ids(ids + config.vocab_size - 1, ids, places)
    with pytest.raises(UserError, match=r"token id 99: .* 0 to 98 \(vocab_size=99\)"):
        config.check_ids(ids + 99, ids, places)
    with pytest.raises(UserError, match=r"position id 16: .* 0 to 15 .*lower the maximum length"):
        config.check_ids(ids, ids, places + 1)
    if config.SEGMENTS_ARE_TYPES:
        kinds = config.type_vocab_size
        with pytest.raises(UserError, match=f"token type id {kinds}: .*type_vocab_size={kinds}"):
            config.check_ids(ids, ids + kinds, places)
    else:
        config.check_ids(ids, ids + 1, places)
        assert config.takes_pairs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropout_of_a_head_is_that_of_its_field(name):
    part = ARCHITECTURES[name].head
    if not part.endswith("_head") or part == "mlm_head":
        return
    config = tiny_config_of(name)
    config = dataclasses.replace(
        config,
        **{field: 0.0 for field in config.DROPOUT_RATES if field not in config.NOT_IN_FILE},
    )
    hidden = jax.random.normal(jax.random.key(1), (2, 3, config.hidden_size))

    def answer(config, training):
        head = ClassifierHead(config, part, 5, jnp.float32)
        in_use, keys = (
            jnp.ones((2, 3), bool),
            {"params": jax.random.key(0), "dropout": jax.random.key(2)},
        )
        return head.init_with_output(keys, hidden, in_use, jnp.arange(2), training)[0]

    np.testing.assert_array_equal(answer(config, True), answer(config, False))
    field = config.dropout_field(part)
    if field is None:
        with pytest.raises(UserError, match=f"no effect: .* its {part}; leave it out"):
            config.with_head(part, classifier_dropout=0.5)
        return
    dropped = dataclasses.replace(config, **{field: 0.5})
    assert dropped.head_dropout(part) == 0.5
    assert np.abs(answer(dropped, True) - answer(dropped, False)).max() > 1e-3
    if field == "hidden_dropout_prob":
        with pytest.raises(UserError, match=r"no effect: .*; set hidden_dropout_prob"):
            config.with_head(part, classifier_dropout=0.5)
    else:
        assert config.with_head(part, classifier_dropout=0.5) == dropped


def test_normalisation_of_a_head_without_labels_is_refused():
    with pytest.raises(UserError, match=r"classifier_norm=layer has no effect: .* a span_head;"):
        BertConfig().with_head("span_head", classifier_norm="layer")


def test_heads_of_layers_that_share_their_parameters_are_not_removed():
    with pytest.raises(UserError, match=r"--heads 1-2: albert has layers that share .*Model.trace"):
        check_prunable(tiny_config("albert"), "--heads 1-2")
    check_prunable(tiny_config("electra"), "--heads 1-2")


@pytest.mark.parametrize(
    ("family", "part", "field"),
    [
        ("bert", "sequence_head", "classifier_dropout"),
        ("bert", "span_head", None),
        ("roberta", "choice_head", "hidden_dropout_prob"),
        ("distilbert", "sequence_head", "seq_classif_dropout"),
        ("distilbert", "choice_head", "seq_classif_dropout"),
        ("distilbert", "token_head", "hidden_dropout_prob"),
        ("distilbert", "span_head", "qa_dropout"),
        ("electra", "sequence_head", "classifier_dropout"),
        ("electra", "choice_head", "summary_last_dropout"),
        ("electra", "replaced_head", None),
        ("albert", "order_head", "classifier_dropout"),
        ("albert", "span_head", None),
    ],
)
def test_field_of_a_heads_dropout_is_that_of_transformers(family, part, field):
    assert tiny_config(family).dropout_field(part) == field
