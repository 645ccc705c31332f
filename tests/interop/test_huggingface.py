"""Model directories in and out: nothing is lost, nothing passes unnoticed."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bertjax.interop.huggingface as huggingface
from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.families.registry import load_config
from bertjax.families.roberta import RobertaConfig
from bertjax.interop.huggingface import (
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.tensor_names import flatten, our_shape, rows_of
from bertjax.program.errors import UserError
from bertjax.text.tokenizer import load_tokenizer
from tests.text.tiny_tokenizers import make_of

# As transformers wrote it: V=99, D=24, L=5, N=4, H=6, F=37, M=17, G=3.
TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path):
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit_tensors(directory, edit):
    """Writes the weights anew, as `edit(dict)` leaves them."""
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def edit_config(directory, **fields):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | fields))


def drop(tensors, start):
    for name in [name for name in tensors if name.startswith(start)]:
        del tensors[name]


def assert_same_parameters(actual, expected):
    actual, expected = dict(flatten(actual)), dict(flatten(expected))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_weights_in_and_out_are_the_same_bytes(tmp_path):
    config, params, _, notes = load_model_directory(TINY)
    save_model_directory(tmp_path / "out", config, params, TINY)
    assert notes == []
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()
    folders = tmp_path / "out", TINY
    ours, theirs = (json.loads((one / "tokenizer_config.json").read_text()) for one in folders)
    assert ours == ours | theirs | {"model_max_length": config.max_position_embeddings}
    ours, theirs = map(load_tokenizer, folders)
    assert ours.fingerprint == theirs.fingerprint
    again, params_again, *_ = load_model_directory(tmp_path / "out")
    assert again == config
    assert_same_parameters(params_again, params)


def test_saved_config_names_model_and_architecture(tmp_path):
    config, params, *_ = load_model_directory(TINY)
    del params["nsp_head"], params["bert"]["pooler"]
    save_model_directory(tmp_path / "out", config, params, TINY, "BertForMaskedLM")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values["model_type"] == "bert"
    assert values["architectures"] == ["BertForMaskedLM"]
    assert values["layer_norm_eps"] == 1e-12
    assert inspect_model_directory(tmp_path / "out").parts == ["mlm_head"]


def test_saved_directory_is_readable_by_others_and_alone(tmp_path):
    config, params, *_ = load_model_directory(TINY)
    save_model_directory(tmp_path / "deep" / "out", config, params, TINY)
    out = tmp_path / "deep" / "out"
    assert (out / WEIGHTS).stat().st_mode == (out / "config.json").stat().st_mode
    names = {"config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert {file.name for file in out.iterdir()} == names
    assert [file.name for file in out.parent.iterdir()] == ["out"]


def test_names_of_older_checkpoints_are_read(directory):
    def make_old(tensors):
        for name in list(tensors):
            old = name.removeprefix("bert.")
            old = old.replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["embeddings.position_ids"] = np.arange(17)[None]
        tensors["cls.predictions.decoder.weight"] = tensors["embeddings.word_embeddings.weight"]
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]

    edit_tensors(directory, make_old)
    _, params, _, notes = load_model_directory(directory)
    assert notes == []
    assert_same_parameters(params, load_model_directory(TINY).params)
    whole, old = inspect_model_directory(TINY), inspect_model_directory(directory)
    assert old.parameters == whole.parameters


def test_shards_equal_one_file(directory):
    tensors = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    places = {
        name: f"model-0000{1 + index % 2}-of-00002.safetensors"
        for index, name in enumerate(sorted(tensors))
    }
    for file in set(places.values()):
        save_file(
            {name: tensors[name] for name in tensors if places[name] == file}, directory / file
        )
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_same_parameters(
        load_model_directory(directory).params, load_model_directory(TINY).params
    )

    index.write_text(json.dumps({"weight_map": places | {"bert.stranger": file}}))
    with pytest.raises(UserError, match=rf"{file}: no tensor bert.stranger"):
        load_model_directory(directory)
    (directory / file).unlink()
    with pytest.raises(UserError, match=rf"{file}: missing, though model.safetensors.index.json"):
        load_model_directory(directory)
    index.write_text('{"weight_map": {"bert.x": "../elsewhere.safetensors"}}')
    with pytest.raises(UserError, match=r"weight_map cannot be read .a file outside"):
        load_model_directory(directory)
    index.write_text('{"weight_map": [')
    with pytest.raises(UserError, match=r"index.json: damaged"):
        load_model_directory(directory)


@pytest.mark.parametrize(("dtype", "word"), [(np.float16, "F16"), (ml_dtypes.bfloat16, "BF16")])
def test_half_precision_is_converted_and_said(directory, dtype, word):
    edit_tensors(
        directory,
        lambda tensors: tensors.update({name: tensors[name].astype(dtype) for name in tensors}),
    )
    _, params, _, notes = load_model_directory(directory)
    assert notes == [f"{directory}: {word} weights are converted to float32"]
    bias = load_file(TINY / WEIGHTS)["cls.predictions.bias"]
    np.testing.assert_array_equal(params["mlm_head"]["bias"], bias.astype(dtype).astype(np.float32))


def test_absent_parts_are_errors_until_asked_for(directory):
    edit_tensors(directory, lambda tensors: (drop(tensors, "cls."), drop(tensors, "bert.pooler")))
    with pytest.raises(
        UserError, match=r"no mlm_head and no nsp_head and no pooler .missing tensor"
    ):
        load_model_directory(directory)
    with pytest.raises(UserError, match=r"has no nsp_head .missing tensor cls.seq_relationship"):
        load_model_directory(directory, may_lack=("pooler", "mlm_head"))

    body = load_model_directory(directory, may_lack=("pooler", "mlm_head", "nsp_head"))
    assert body.params.keys() == {"bert"}
    assert body.params["bert"].keys() == {"embeddings", "encoder"}
    assert body.notes == []


def test_absent_parts_are_drawn_as_in_a_new_model(directory):
    edit_tensors(directory, lambda tensors: (drop(tensors, "cls."), drop(tensors, "bert.pooler")))
    key = jax.random.key(7)
    _, params, _, notes = load_model_directory(directory, initialize_missing=key)
    assert notes == [
        f"{directory}: it has no {part}; one is initialised freshly and must be trained"
        for part in ("mlm_head", "nsp_head", "pooler")
    ]
    kernels = (params["mlm_head"]["dense"]["kernel"], params["bert"]["pooler"]["dense"]["kernel"])
    for kernel in kernels:
        assert kernel.shape == (24, 24)
        assert 0.01 < kernel.std() < 0.03
        assert np.abs(kernel).max() <= 0.04
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(params["mlm_head"]["layer_norm"]["scale"], np.ones(24))
    np.testing.assert_array_equal(params["nsp_head"]["dense"]["bias"], np.zeros(2))
    assert_same_parameters(load_model_directory(directory, initialize_missing=key).params, params)
    shapes = {name: leaf.shape for name, leaf in flatten(params)}
    config = load_config(directory)
    rows = rows_of(config, ARCHITECTURES["BertForPreTraining"].parts)
    assert shapes == {row.ours: our_shape(row, config) for row in rows}


QUERY = "bert.encoder.layer.3.attention.self.query.weight"


def set_tensor(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            set_tensor("crf.transitions", np.ones((2, 3), np.float32)),
            r"unexpected tensor crf.transitions \[2, 3\]",
        ),
        (lambda tensors: tensors.pop(QUERY), rf"missing tensor {QUERY} \[24, 24\]"),
        (
            lambda tensors: tensors.pop("bert.pooler.dense.bias"),
            r"missing tensor bert.pooler.dense.bias",
        ),
        (
            set_tensor(QUERY, np.ones((24, 23), np.float32)),
            r"query.weight has shape \[24, 23\], config.json asks for \[24, 24\]",
        ),
        (
            set_tensor(
                "bert.encoder.layer.3.intermediate.dense.weight", np.ones((24, 37), np.float32)
            ),
            r"has shape \[24, 37\], config.json asks for \[37, 24\]",
        ),
        (
            set_tensor("cls.predictions.decoder.weight", np.ones((99, 24), np.float32)),
            r"decoder.weight differs from bert.embeddings.word_embeddings.weight",
        ),
        (set_tensor("cls.predictions.decoder.bias", np.ones(98, np.float32)), r"asks for \[99\]"),
        (
            set_tensor("embeddings.LayerNorm.gamma", np.ones(24, np.float32)),
            r"are two names of the same tensor",
        ),
        (set_tensor(QUERY, np.ones((24, 24), np.int8)), r"is stored as I8"),
        (set_tensor(QUERY, np.full((24, 24), np.nan, np.float32)), rf"{QUERY} holds NaN"),
    ],
)
def test_wrong_tensor_is_named(directory, edit, message):
    edit_tensors(directory, edit)
    with pytest.raises(UserError, match=message) as caught:
        load_model_directory(directory)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, r"config.json: model_type='gpt2' is not a family"),
        (
            {"model_type": "roberta"},
            r"unexpected tensor bert\.embeddings.* describes a Roberta.*; its tensors are called as"
            r" a bert calls them, and config\.json has model_type='roberta'$",
        ),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"num_hidden_layers": 6}, r"missing tensor bert.encoder.layer.5\."),
        ({"num_hidden_layers": 4}, r"unexpected tensor bert.encoder.layer.4\."),
        ({"num_attention_heads": 5}, "must be a multiple of num_attention_heads=5"),
        ({"vocab_size": 98}, r"has shape \[99(, 24)?\], config.json asks for \[98(, 24)?\]"),
        ({"hidden_dropout_prob": "much"}, "config.json"),
    ],
)
def test_config_of_another_model_is_refused(directory, fields, message):
    edit_config(directory, **fields)
    with pytest.raises(UserError, match=message):
        load_model_directory(directory)


@pytest.mark.parametrize("size", [0, 7, 500, 100_000])
def test_file_cut_short_is_refused(directory, size):
    with (directory / WEIGHTS).open("r+b") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=rf"{WEIGHTS}: damaged or cut short"):
        load_model_directory(directory)
    with pytest.raises(UserError, match=rf"{WEIGHTS}: damaged or cut short"):
        inspect_model_directory(directory)


def test_directory_without_its_files_is_refused(directory):
    with pytest.raises(UserError, match=r"no such directory"):
        load_model_directory(directory / "nowhere")
    with pytest.raises(UserError, match=r"is a file"):
        load_model_directory(directory / WEIGHTS)
    (directory / WEIGHTS).rename(directory / "elsewhere")
    with pytest.raises(UserError, match=r"no model.safetensors; the directory is not a whole"):
        load_model_directory(directory)
    (directory / "elsewhere").rename(directory / "pytorch_model.bin")
    way_out = rf"`bertjax convert --model {directory} --output DIR`"
    with pytest.raises(UserError, match=rf"pytorch_model.bin, which is not read.*{way_out}"):
        load_model_directory(directory)
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: no such file"):
        load_model_directory(directory)


@pytest.mark.parametrize("stands", [True, False])
def test_full_disk_leaves_what_stood_there(directory, monkeypatch, stands):
    import safetensors.numpy

    def fill_the_disk(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    config, params, *_ = load_model_directory(directory)
    path = directory if stands else directory.with_name("new")
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    monkeypatch.setattr(safetensors.numpy, "save_file", fill_the_disk)
    with pytest.raises(OSError, match=r"No space left") as caught:
        save_model_directory(path, config, params, TINY)
    assert caught.value.errno == errno.ENOSPC
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
    assert [file.name for file in directory.parent.iterdir()] == ["model"]


def test_directory_that_stands_gets_its_weights_last(directory, monkeypatch):
    config, params, *_ = load_model_directory(directory)
    params["mlm_head"]["bias"] = params["mlm_head"]["bias"] + 1
    (directory / "README.md").write_text("mine")
    replaced = []
    replace = os.replace
    monkeypatch.setattr(
        huggingface.os, "replace", lambda a, b: (replaced.append(b.name), replace(a, b))
    )
    save_model_directory(directory, config, params, TINY)
    assert len(replaced) == 5
    assert replaced[-1] == WEIGHTS
    assert (directory / "README.md").read_text() == "mine"
    assert_same_parameters(load_model_directory(directory).params, params)


def test_half_a_directory_of_a_killed_program_is_no_hindrance(tmp_path):
    config, params, *_ = load_model_directory(TINY)
    left_over = tmp_path / ".partial-killed"
    left_over.mkdir()
    (left_over / "stranger").touch()
    os.utime(left_over, (0, 0))
    save_model_directory(tmp_path / "out", config, params, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "stranger").exists()


def test_save_refuses_what_does_not_belong_together(directory, tmp_path):
    config, params, *_ = load_model_directory(TINY)
    with pytest.raises(UserError, match=r"is a file; name a folder"):
        save_model_directory(directory / WEIGHTS, config, params, TINY)
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.txt"):
        save_model_directory(tmp_path / "out", config, params, tmp_path)
    smaller = BertConfig.from_dict({**config.to_dict(), "vocab_size": 98})
    cut = load_model_directory(TINY).params
    cut["bert"]["embeddings"]["word_embeddings"] = np.ones((98, 24), np.float32)
    cut["mlm_head"]["bias"] = np.ones(98, np.float32)
    with pytest.raises(UserError, match=r"99 tokens, more than the model's vocab_size=98"):
        save_model_directory(tmp_path / "out", smaller, cut, TINY)
    with pytest.raises(ValueError, match=r"word_embeddings has shape .99, 24., the config says"):
        save_model_directory(tmp_path / "out", smaller, params, TINY)
    with pytest.raises(ValueError, match=r"no row of the family's table covers stranger"):
        save_model_directory(tmp_path / "out", config, {**params, "stranger": np.ones(3)}, TINY)
    del params["nsp_head"]["dense"]["bias"]
    with pytest.raises(ValueError, match=r"the parameters lack nsp_head/dense/bias"):
        save_model_directory(tmp_path / "out", config, params, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_inspect_tells_what_load_finds(directory):
    contents = inspect_model_directory(directory)
    _, params, *_ = load_model_directory(directory)
    assert contents.architecture == "BertForPreTraining"
    assert contents.parts == ["pooler", "mlm_head", "nsp_head"]
    assert contents.parameters == sum(value.size for _, value in flatten(params))
    assert contents.dtypes == ["F32"]


def test_tokenizer_that_pads_otherwise_is_refused_where_positions_count_from_it(tmp_path):
    make_of("roberta").save(tmp_path)
    fitting = RobertaConfig(vocab_size=320, pad_token_id=1)
    assert load_model_tokenizer(tmp_path, fitting)[0].pad_id == 1
    with pytest.raises(UserError, match=r"pads with <pad>, id 1, .* pad_token_id=0; it is the tok"):
        load_model_tokenizer(tmp_path, dataclasses.replace(fitting, pad_token_id=0))
    # Padding is nothing to a BERT, and there are BERTs with XLM-R's tokenizer.
    notes = load_model_tokenizer(tmp_path, BertConfig(vocab_size=320))[1]
    assert (
        "its tokenizer has <pad> at id 1, config.json says pad_token_id=0; is it the" in notes[-1]
    )


def test_tokenizer_of_another_family_is_told(tmp_path):
    """Of families that do not count positions from the padding, and frames with other ids."""
    make_of("roberta").save(tmp_path)
    config = RobertaConfig(vocab_size=320, pad_token_id=1)
    assert load_model_tokenizer(tmp_path, config)[1] == []
    other = dataclasses.replace(config, bos_token_id=5, eos_token_id=6)
    assert [note.split(": ")[-1] for note in load_model_tokenizer(tmp_path, other)[1]] == [
        "its tokenizer has <s> at id 0, config.json says bos_token_id=5; is it the tokenizer of"
        " this model?",
        "its tokenizer has </s> at id 2, config.json says eos_token_id=6; is it the tokenizer of"
        " this model?",
    ]
