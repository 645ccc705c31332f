"""`bertjax convert`: what it reads, keeps, leaves out and refuses; what it writes is the same."""

import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bertjax
from bertjax.interop import conversion
from bertjax.interop.conversion import convert
from bertjax.interop.huggingface import load_model_directory
from bertjax.program.errors import UserError
from tests.interop.make_google_checkpoints import (
    CONFIG,
    DISCRIMINATOR,
    ELECTRA,
    FOLDER,
    GENERATOR,
    TOKEN_IDS,
    TOKEN_TYPE_IDS,
    TOKENS,
    value_of,
)

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
TINY = GOLDEN / "tiny_bert"
WEIGHTS = "model.safetensors"


@pytest.fixture
def google(tmp_path):
    """A copy of Google's checkpoint to spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "google"))


@pytest.fixture
def directory(tmp_path):
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def read_config(path):
    return json.loads((path / "config.json").read_text())


def edit_tensors(directory, edit):
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def test_google_checkpoint_becomes_the_same_numbers(tmp_path):
    result = convert(FOLDER, tmp_path / "out").result
    tensors = load_file(tmp_path / "out" / WEIGHTS)
    assert len(tensors) == result["written"]["tensors"] == 62
    for theirs, google, is_kernel in (
        ("bert.embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings", False),
        ("bert.embeddings.LayerNorm.bias", "bert/embeddings/LayerNorm/beta", False),
        ("bert.encoder.layer.2.attention.self.query.weight",
         "bert/encoder/layer_2/attention/self/query/kernel", True),
        ("bert.encoder.layer.0.output.LayerNorm.weight",
         "bert/encoder/layer_0/output/LayerNorm/gamma", False),
        ("bert.encoder.layer.1.intermediate.dense.weight",
         "bert/encoder/layer_1/intermediate/dense/kernel", True),
        ("cls.predictions.transform.dense.weight", "cls/predictions/transform/dense/kernel", True),
        ("cls.predictions.bias", "cls/predictions/output_bias", False),
        ("cls.seq_relationship.weight", "cls/seq_relationship/output_weights", False),
        ("cls.seq_relationship.bias", "cls/seq_relationship/output_bias", False),
    ):  # fmt: skip
        value = tensors[theirs]
        stored = (
            value_of(google, value.shape[::-1]).T if is_kernel else value_of(google, value.shape)
        )
        np.testing.assert_array_equal(value, stored, err_msg=theirs)
    assert result["read"]["architecture"] == "BertForPreTraining"
    assert result["left_out"] == [
        "adam_m: 62 tensors of the training", "adam_v: 62 tensors of the training",
        "global_step: 1 tensor of the training",
    ]  # fmt: skip
    config = read_config(tmp_path / "out")
    stated = json.loads((FOLDER / "bert_config.json").read_text())
    assert config == config | stated | {"layer_norm_eps": 1e-12, "model_type": "bert"}


def test_google_checkpoint_computes_what_googles_program_computed(tmp_path):
    assert "gelu_new" in convert(FOLDER, tmp_path / "out", "BertModel").notes[0]
    model = bertjax.load(tmp_path / "out")
    # Google's gelu is the approximate one.
    module = model.module.clone(config=dataclasses.replace(model.config, hidden_act="gelu_new"))
    with jax.default_matmul_precision("highest"):
        output = module.apply(
            {"params": model.params},
            jnp.array(TOKEN_IDS, jnp.int32),
            jnp.array(TOKEN_TYPE_IDS, jnp.int32),
            trace=("hidden",),
        )
    expected = np.load(FOLDER / "outputs.npz")
    real = np.array(TOKEN_IDS) != 0
    hidden = np.array(output.trace.hidden)
    np.testing.assert_allclose(hidden[:, real], expected["hidden"][:, real], atol=2e-5)
    np.testing.assert_allclose(output.pooled[:, 0], expected["pooled"], atol=2e-5)


@pytest.mark.parametrize("named", ["", "bert_model.ckpt", "bert_model.ckpt.index", ".."])
def test_google_checkpoint_by_folder_prefix_index_and_archive(tmp_path, google, named):
    (tmp_path / "archive").mkdir()
    google = google.rename(tmp_path / "archive" / "uncased_L-3_H-8_A-2")
    result = convert(google / named, tmp_path / "out").result
    assert result["written"]["architecture"] == "BertForPreTraining"


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM"])
def test_class_says_what_is_kept(tmp_path, architecture):
    result = convert(TINY, tmp_path / "out", architecture).result
    _, params, own, _ = load_model_directory(tmp_path / "out")
    whole = load_model_directory(TINY, architecture).params
    assert own == architecture == read_config(tmp_path / "out")["architectures"][0]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, whole)
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    kept = {"BertModel": {"pooler"}, "BertForMaskedLM": {"mlm_head"}}[architecture]
    assert set(result["written"]["parts"]) == kept
    left_out = [f"{part}: a {architecture} has none" for part in ("mlm_head", "nsp_head", "pooler")]
    assert result["left_out"] == [line for line in left_out if line.split(":")[0] not in kept]
    if architecture == "BertModel":
        assert all(not name.startswith("bert.") for name in load_file(tmp_path / "out" / WEIGHTS))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_of_the_file(tmp_path, dtype):
    result = convert(TINY, tmp_path / "out", dtype=dtype).result
    tensors, original = load_file(tmp_path / "out" / WEIGHTS), load_file(TINY / WEIGHTS)
    assert result["written"]["stored_as"] == read_config(tmp_path / "out")["dtype"] == dtype
    assert tensors.keys() == original.keys()
    for name, value in tensors.items():
        assert value.dtype.name == dtype
        assert value.tobytes() == original[name].astype(dtype).tobytes()
    # What is stored in it stays so, and float32 gives back what it holds.
    for again in ("auto", "float32"):
        convert(tmp_path / "out", tmp_path / again, dtype=again)
    assert (tmp_path / "auto" / WEIGHTS).read_bytes() == (tmp_path / "out" / WEIGHTS).read_bytes()
    for name, value in load_file(tmp_path / "float32" / WEIGHTS).items():
        np.testing.assert_array_equal(value, tensors[name].astype(np.float32))


def test_numbers_that_a_dtype_does_not_hold(tmp_path, directory):
    def spoil(tensors):
        tensors["bert.pooler.dense.bias"][:3] = 1e-9, -1e-9, 0

    edit_tensors(directory, spoil)
    notes = convert(directory, tmp_path / "out", dtype="float16").notes
    assert "--dtype float16: 2 numbers other than 0 became 0" in notes
    edit_tensors(directory, lambda tensors: tensors["bert.pooler.dense.bias"].fill(1e5))
    with pytest.raises(UserError, match=r"bert/pooler/dense/bias hold 100000, and float16 ends at"):
        convert(directory, tmp_path / "other", dtype="float16")
    assert not (tmp_path / "other").exists()
    convert(directory, tmp_path / "other", dtype="bfloat16")


def test_shards_and_old_names_become_one_file(tmp_path, directory):
    tensors = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    tensors["bert.embeddings.position_ids"] = np.arange(17)[None]
    word_embeddings = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = word_embeddings
    places = {name: f"model-0000{1 + (name < 'bert.enc')}.safetensors" for name in tensors}
    for file in set(places.values()):
        part = {name: tensors[name] for name in tensors if places[name] == file}
        save_file(part, directory / file, metadata={"format": "pt"})
    (directory / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    result = convert(directory, tmp_path / "out").result
    assert result["form"] == "safetensors, 2 files"
    assert result["left_out"] == [
        "bert.embeddings.position_ids: the numbers 0, 1, 2, ..., which are not learned",
        "cls.predictions.decoder.weight: equal to bert.embeddings.word_embeddings.weight",
    ]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt"
    }  # fmt: skip


def test_flax_becomes_safetensors(tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "flax_bert", tmp_path / "flax"))
    (folder / "vocab.txt").write_text("\n".join(TOKENS[:20]))
    result = convert(folder, tmp_path / "out").result
    assert (result["form"], result["written"]["stored_as"]) == ("msgpack of Flax", "float32")
    actual, expected = (load_model_directory(path).params for path in (tmp_path / "out", folder))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert not (tmp_path / "out" / "flax_model.msgpack").exists()


def test_what_is_beside_a_model_goes_along(tmp_path, directory):
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"))
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "README.md").write_text("# Tiny")
    (directory / "tf_model.h5").write_bytes(b"another's")
    result = convert(directory, tmp_path / "out", "BertModel").result
    assert result["files_copied"] == ["README.md", "modules.json", "1_Pooling"]
    assert not (tmp_path / "out" / "tf_model.h5").exists()
    assert bertjax.load(tmp_path / "out").sentence_model.pooling == ("cls",)


def test_body_without_a_pooler(tmp_path, directory):
    edit_tensors(
        directory,
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "pooler" in name],
    )
    convert(directory, tmp_path / "out", "BertModel")
    assert not any("pooler" in name for name in load_file(tmp_path / "out" / WEIGHTS))
    with pytest.raises(UserError, match="is a BertForPreTraining and has no pooler"):
        convert(directory, tmp_path / "other", "BertForPreTraining")


@pytest.fixture
def written_otherwise(monkeypatch):
    """Spoils every file of weights after it is written."""
    write = conversion.save_model_directory

    def spoil(path, *arguments):
        write(path, *arguments)

        def add(tensors):
            tensors["bert.pooler.dense.bias"] += np.float32(2.0**-30)

        edit_tensors(path, add)

    monkeypatch.setattr(conversion, "save_model_directory", spoil)


def test_what_is_written_otherwise_than_read_is_found(tmp_path, written_otherwise):
    with pytest.raises(RuntimeError, match=r"bert\.pooler\.dense\.bias is not written as it was"):
        convert(TINY, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_output_that_is_there_is_replaced_when_told(tmp_path, bertjax_command):
    line = ["convert", "--model", FOLDER, "--output", tmp_path / "out", "--json"]
    code, out, err = bertjax_command(*line)
    assert (code, json.loads(out)["written"]["tensors"]) == (0, 62)
    assert "Google's program approximates it by tanh" in err
    code, out, err = bertjax_command(*line)
    assert (code, out) == (2, "")
    assert "exists; pass --overwrite true to replace it" in err
    code, out, _ = bertjax_command(*line, "--overwrite", "true", "--architecture", "BertModel")
    assert (code, read_config(tmp_path / "out")["architectures"]) == (0, ["BertModel"])
    (tmp_path / "out" / "thesis.tex").write_text("")
    code, _, err = bertjax_command(*line, "--overwrite", "true")
    assert (code, "is not replaced: it holds thesis.tex" in err) == (2, True)


def test_source_itself_is_never_the_output(directory):
    for output in (directory, directory / "new"):
        with pytest.raises(UserError, match=r"contains the input|is inside the input"):
            convert(directory, output, overwrite=True)
    assert (directory / WEIGHTS).exists()


def test_unknown_class_and_place_are_refused(tmp_path, bertjax_command):
    line = ["convert", "--output", tmp_path / "out"]
    code, _, err = bertjax_command(*line, "--model", TINY, "--architecture", "BertForMaskLM")
    assert (code, "did you mean 'BertForMaskedLM'?" in err) == (2, True)
    code, _, err = bertjax_command(*line, "--model", tmp_path / "nowhere")
    assert (code, "nowhere: no such directory; a model is a directory" in err) == (2, True)
    code, _, err = bertjax_command(*line, "--model", FOLDER / "bert_model.ckpt.data-00000-of-00001")
    assert (code, "is a file; name the folder that it is in, or what the files" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    code, _, err = bertjax_command(*line, "--model", tmp_path / "empty")
    assert (code, "empty: no model.safetensors; the directory is not a whole" in err) == (2, True)
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------- Google's, spoiled


@pytest.fixture
def renamed(monkeypatch):
    """Gives the tensors of Google's checkpoints other names: name -> name, or None for none."""

    def rename(names):
        module = sys.modules["bertjax.interop.google_checkpoint"]
        read = module.read_bundle

        def read_renamed(prefix):
            bundle = read(prefix)
            entries = {names.get(name, name): entry for name, entry in bundle.entries.items()}
            entries.pop(None, None)
            return bundle._replace(entries=entries)

        monkeypatch.setattr(module, "read_bundle", read_renamed)

    return rename


SEQ_RELATIONSHIP = "cls/seq_relationship/output"
MLM_TENSORS = dict.fromkeys(
    f"cls/predictions/{name}"
    for name in (
        *("output_bias", "transform/dense/kernel", "transform/dense/bias"),
        *("transform/LayerNorm/gamma", "transform/LayerNorm/beta"),
    )
)


@pytest.mark.parametrize(
    ("made", "architecture", "expected"),
    [
        ("cls/squad/output", None, "BertForQuestionAnswering"),
        ("output", "BertForSequenceClassification", "BertForSequenceClassification"),
        ("output", "BertForTokenClassification", "BertForTokenClassification"),
        ("output", "BertModel", "BertModel"),
    ],
)
def test_fine_tuned_google_checkpoints(tmp_path, renamed, made, architecture, expected):
    ends = ("_weights", "_bias")
    renamed({**MLM_TENSORS, **{SEQ_RELATIONSHIP + end: made + end for end in ends}})
    result = convert(FOLDER, tmp_path / "out", architecture).result
    assert result["written"]["architecture"] == expected
    tensors = load_file(tmp_path / "out" / WEIGHTS)
    if expected == "BertModel":
        assert "output_bias: 1 tensor that the class has no place for" in result["left_out"]
        return
    weight = tensors["qa_outputs.weight" if "squad" in made else "classifier.weight"]
    np.testing.assert_array_equal(weight, value_of(f"{SEQ_RELATIONSHIP}_weights", (2, 8)))


def test_classifier_of_unknown_kind_is_refused(tmp_path, renamed):
    renamed({f"{SEQ_RELATIONSHIP}_{what}": f"output_{what}" for what in ("weights", "bias")})
    with pytest.raises(UserError, match="does not say of what; name its class: --architecture"):
        convert(FOLDER, tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"global_step": "_CHECKPOINTABLE_OBJECT_GRAPH"},
            r"an object-based checkpoint of TensorFlow 2 .* release for TensorFlow 1",
        ),
        (
            {"global_step": "electra/embeddings/word_embeddings"},
            "has tensor electra/embeddings/word_embeddings, so it is no checkpoint of google-rese",
        ),
        (
            {"global_step": "albert/embeddings"},
            "has tensor albert/embeddings, so it is no checkpoint of google-research/bert",
        ),
        (
            {"bert/pooler/dense/bias": "bert/pooler/dense/offset"},
            r"unexpected tensor bert\.pooler\.dense\.offset \[8\]",
        ),
        (
            {"bert/encoder/layer_1/output/dense/bias": None},
            r"missing tensor bert\.encoder\.layer\.1\.output\.dense\.bias",
        ),
    ],
)
def test_other_tensors_of_tensorflow_are_refused(tmp_path, renamed, names, message):
    renamed(names)
    with pytest.raises(UserError, match=message):
        convert(FOLDER, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_google_folders_that_are_not_whole(tmp_path, google):
    (google / "bert_config.json").rename(google / "elsewhere")
    with pytest.raises(UserError, match=r"google: no bert_config\.json beside the TensorFlow"):
        convert(google, tmp_path / "out")
    (google / "bert_config.json").write_text('{"hidden_size": "8"}')
    with pytest.raises(UserError, match=r"bert_config\.json: hidden_size='8' must be a whole"):
        convert(google, tmp_path / "out")
    shutil.copy(google / "elsewhere", google / "bert_config.json")
    (google / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"google: no vocab\.txt beside the TensorFlow"):
        convert(google, tmp_path / "out")
    shutil.copy(google / "bert_model.ckpt.index", google / "model.ckpt-9.index")
    with pytest.raises(UserError, match=r"has 2 TensorFlow checkpoints \(bert_model\.ckpt\.index,"):
        convert(google, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", [["fill-mask", "a [MASK]", "--model"], ["info"]])
def test_other_commands_name_the_way_out(google, bertjax_command, line):
    code, out, err = bertjax_command(*line, google)
    assert (code, out) == (2, "")
    assert "TensorFlow checkpoint, which is not read as it is: make a model directory" in err
    assert f"`bertjax convert --model {google} --output DIR`" in err


# -------------------------------------------------------------------- ELECTRA's two models

GENERATOR_HEAD = "generator_predictions"


@pytest.fixture
def electra(tmp_path):
    """Returns a copy of the checkpoint of ELECTRA with the config of one of its models."""

    def copy(config):
        folder = Path(shutil.copytree(ELECTRA, tmp_path / "electra", dirs_exist_ok=True))
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


@pytest.mark.parametrize(
    ("config", "architecture", "expected", "scope", "left_out"),
    [
        (DISCRIMINATOR, None, "ElectraForPreTraining", "electra",
         {"generator": 50, GENERATOR_HEAD: 5}),
        (DISCRIMINATOR, "ElectraModel", "ElectraModel", "electra",
         {"generator": 50, GENERATOR_HEAD: 5}),
        (GENERATOR, "ElectraForMaskedLM", "ElectraForMaskedLM", "generator",
         {"discriminator_predictions": 4, "electra": 50}),
    ],
)  # fmt: skip
def test_electra_becomes_its_two_models(
    tmp_path, electra, config, architecture, expected, scope, left_out
):
    result, notes = convert(electra(config), tmp_path / "out", architecture)
    assert notes == []
    assert result["written"]["architecture"] == expected
    places = [
        f"{name}: {n} tensors that the class has no place for" for name, n in left_out.items()
    ]
    assert result["left_out"][:5] == [
        "adam_m: 114 tensors of the training", "adam_v: 114 tensors of the training",
        "global_step: 1 tensor of the training", *sorted(places),
    ]  # fmt: skip
    tensors = {
        name.removeprefix("electra."): value
        for name, value in load_file(tmp_path / "out" / WEIGHTS).items()
    }
    for theirs, google in (
        ("embeddings.word_embeddings.weight", "electra/embeddings/word_embeddings"),
        ("embeddings_project.weight", f"{scope}/embeddings_project/kernel"),
        ("encoder.layer.2.output.dense.weight", f"{scope}/encoder/layer_2/output/dense/kernel"),
        ("discriminator_predictions.dense_prediction.weight",
         "discriminator_predictions/dense_1/kernel"),
        ("generator_lm_head.bias", "generator_predictions/output_bias"),
    ):  # fmt: skip
        if theirs in tensors:
            value = tensors[theirs]
            stored = value_of(google, value.shape[::-1] if "kernel" in google else value.shape)
            np.testing.assert_array_equal(value, stored.T if "kernel" in google else stored)
    assert ("generator_lm_head.bias" in tensors) == (scope == "generator")
    model = bertjax.load(tmp_path / "out", "ElectraModel")
    output = model.module.apply(  # the gelu of this program is the exact one
        {"params": model.params},
        jnp.array(TOKEN_IDS, jnp.int32),
        jnp.array(TOKEN_TYPE_IDS, jnp.int32),
        trace=("hidden",),
    )
    outputs, real = np.load(ELECTRA / "outputs.npz"), np.array(TOKEN_IDS) != 0
    computed = outputs["hidden" if scope == "electra" else "generator_hidden"]
    hidden = np.array(output.trace.hidden)
    np.testing.assert_allclose(hidden[:, real], computed[:, real], atol=2e-5)


def test_electra_without_its_config_or_with_anothers(tmp_path, electra):
    folder = electra(GENERATOR)
    with pytest.raises(UserError, match=r"has shape \[8\], config\.json asks for \[4\]"):
        convert(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "bert"}))
    with pytest.raises(UserError, match="model_type='bert', the checkpoint's is electra"):
        convert(folder, tmp_path / "out")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"electra: no config\.json beside the TensorFlow"):
        convert(folder, tmp_path / "out")


# -------------------------------------------------------------------- pickled, without torch


def test_pickled_weights_are_refused_without_torch(tmp_path, directory, monkeypatch):
    (directory / WEIGHTS).rename(directory / "pytorch_model.bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"which is not installed: pip install 'bertjax\[torch\]'"):
        convert(directory, tmp_path / "out")
    torch = types.SimpleNamespace(__version__="2.9.1+cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: torch)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(UserError, match=r"torch 2\.9\.1\+cpu does not read that safely; a version"):
        convert(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()
