"""`flax_model.msgpack` in every form that transformers wrote it."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from bertjax.interop.huggingface import inspect_model_directory, load_model_directory
from bertjax.interop.tensor_names import flatten, put
from bertjax.program.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "flax_bert"
WEIGHTS = "flax_model.msgpack"


@pytest.fixture
def directory(tmp_path):
    """A copy of the golden model to spoil."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


@pytest.fixture
def tree():
    return msgpack_restore((GOLDEN / WEIGHTS).read_bytes())


def assert_as_golden(directory, notes=()):
    loaded, golden = load_model_directory(directory), load_model_directory(GOLDEN)
    assert loaded.notes == list(notes)
    assert loaded.architecture == "BertForPreTraining"
    jax.tree.map(np.testing.assert_array_equal, loaded.params, golden.params)


def test_kernels_and_embeddings_are_where_they_belong(tree):
    params = load_model_directory(GOLDEN).params
    layer = tree["bert"]["encoder"]["layer"]["1"]
    expected = layer["attention"]["self"]["query"]["kernel"].reshape(12, 3, 4)
    actual = params["bert"]["encoder"]["layers"]["attention"]["query"]["kernel"][1]
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(
        params["bert"]["encoder"]["layers"]["output_layer_norm"]["scale"][1],
        layer["output"]["LayerNorm"]["scale"],
    )
    np.testing.assert_array_equal(
        params["bert"]["embeddings"]["word_embeddings"],
        tree["bert"]["embeddings"]["word_embeddings"]["embedding"],
    )
    np.testing.assert_array_equal(
        params["nsp_head"]["dense"]["kernel"], tree["cls"]["seq_relationship"]["kernel"]
    )


def test_inspect_tells_what_it_is():
    contents = inspect_model_directory(GOLDEN)
    assert contents.parts == ["pooler", "mlm_head", "nsp_head"]
    assert contents.dtypes == ["F32"]


def test_tree_within_the_collection_params_is_read(directory, tree):
    (directory / WEIGHTS).write_bytes(msgpack_serialize({"params": tree}))
    assert_as_golden(directory)


def test_body_alone_has_no_prefix(directory, tree):
    (directory / WEIGHTS).write_bytes(msgpack_serialize(tree["bert"]))
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | {"architectures": ["BertModel"]}))
    loaded = load_model_directory(directory)
    assert loaded.architecture == "BertModel"
    golden = load_model_directory(GOLDEN).params["bert"]
    jax.tree.map(np.testing.assert_array_equal, loaded.params, {"bert": golden})


@pytest.mark.parametrize(("dtype", "word"), [(np.float16, "F16"), (ml_dtypes.bfloat16, "BF16")])
def test_half_precision_is_converted_and_said(directory, tree, dtype, word):
    halves = jax.tree.map(lambda x: x.astype(dtype), tree)
    (directory / WEIGHTS).write_bytes(msgpack_serialize(halves))
    loaded = load_model_directory(directory)
    assert loaded.notes == [f"{directory}: {word} weights are converted to float32"]
    np.testing.assert_array_equal(
        loaded.params["mlm_head"]["bias"],
        tree["cls"]["predictions"]["bias"].astype(dtype).astype(np.float32),
    )


def test_other_types_are_refused(directory, tree):
    tree["cls"]["predictions"]["bias"] = np.zeros(29, np.int8)
    (directory / WEIGHTS).write_bytes(msgpack_serialize(tree))
    with pytest.raises(UserError, match=r"cls.predictions.bias is stored as int8"):
        load_model_directory(directory)


def test_shards_equal_one_file(directory, tree):
    named = dict(flatten(tree))
    places = {
        name: f"flax_model-0000{1 + index % 2}-of-00002.msgpack"
        for index, name in enumerate(sorted(named))
    }
    for file in set(places.values()):
        shard = {}
        for name in (name for name in named if places[name] == file):
            put(shard, name, named[name])
        (directory / file).write_bytes(msgpack_serialize(shard))
    (directory / WEIGHTS).unlink()
    index = directory / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_as_golden(directory)

    index.write_text(json.dumps({"weight_map": places | {"bert/stranger": file}}))
    with pytest.raises(UserError, match=r"lists 4\d tensors, its files hold 4\d"):
        load_model_directory(directory)
    (directory / file).unlink()
    with pytest.raises(UserError, match=rf"{file}: missing, though {WEIGHTS}.index.json lists it"):
        load_model_directory(directory)


@pytest.mark.parametrize("size", [0, 7, 9000])
def test_file_cut_short_is_refused(directory, size):
    with (directory / WEIGHTS).open("r+b") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=rf"{WEIGHTS}: damaged or cut short"):
        load_model_directory(directory)


@pytest.mark.parametrize("content", [b"\x01", msgpack_serialize([1]), b"\x80\x04\x95."])
def test_file_of_something_else_is_refused(directory, content):
    (directory / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=rf"{WEIGHTS}: damaged"):
        load_model_directory(directory)


def test_safetensors_beside_it_are_what_counts(directory):
    (directory / WEIGHTS).write_bytes(b"")
    source = GOLDEN.parent / "classes" / "BertModel"
    shutil.copy(source / "model.safetensors", directory)
    shutil.copy(source / "config.json", directory)
    assert load_model_directory(directory).architecture == "BertModel"
