"""What text-embeddings-inference reads of a directory for onnxruntime is there, as it asks for it.

Source: text-embeddings-inference 1.9.3, `backends/ort/src/lib.rs` and `router/src/lib.rs`. It is
written in Rust, whose reader refuses a field that is missing or of another type.
"""

import json

import pytest

import bertjax
from bertjax.architectures import classes_of
from bertjax.exporting.export import choose_vectors, write_beside
from bertjax.inference.onnx_session import OnnxSession
from bertjax.text.tokenizer import load_tokenizer
from tests.analysis.saved import save
from tests.families.tiny import tiny_config
from tests.parity.cases import OF_FAMILY
from tests.parity.test_golden import GOLDEN

CONFIG = {
    "architectures": list,
    "model_type": str,
    "max_position_embeddings": int,
    "pad_token_id": int,
    "hidden_size": int,
    "num_hidden_layers": int,
    "id2label": dict,
    "label2id": dict,
}


def model_of(family, kind):
    config = tiny_config(family, pad_token_id=0, id2label=("bad", "good"))
    module = classes_of(config)[kind].module(config)
    return bertjax.Model(module, {}, load_tokenizer(GOLDEN / "tiny_bert"))


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["body", "sequence"])
@pytest.mark.parametrize("family", OF_FAMILY)
def test_files_have_the_fields_that_are_asked_for(tmp_path, family, kind):
    model = model_of(family, kind)
    write_beside(model, choose_vectors(model, "mean" if kind == "body" else None), tmp_path)
    config = read(tmp_path / "config.json")
    assert {name: type(config.get(name)) for name in CONFIG} == CONFIG
    assert set(map(type, config["id2label"].values())) == {str}
    assert set(map(type, config["label2id"].values())) == {int}
    assert config["architectures"][0].endswith("Classification") == (kind == "sequence")
    assert (tmp_path / "tokenizer.json").is_file()
    side = read(tmp_path / "tokenizer_config.json").get("padding_side", "right")
    assert side in ("left", "right")
    if kind == "body":
        pooling = read(tmp_path / "1_Pooling" / "config.json")
        names = ("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_lasttoken")
        assert [pooling[name] for name in names] == [False, True, False]
        assert type(read(tmp_path / "sentence_bert_config.json")["max_seq_length"]) is int


@pytest.mark.parametrize(
    ("architecture", "output"),
    [("BertModel", "sentence_embedding"), ("BertForSequenceClassification", "logits")],
)
def test_file_is_where_and_answers_what_is_asked_for(tmp_path, architecture, output):
    model = bertjax.load(save(tmp_path, architecture))
    model.export(tmp_path / "out")
    assert not (tmp_path / "out" / "model.onnx").exists()  # which would be taken first
    session = OnnxSession(tmp_path / "out" / "onnx" / "model.onnx")
    assert session.inputs.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert [type(size) for size in session.outputs[output]] == [str, int]
