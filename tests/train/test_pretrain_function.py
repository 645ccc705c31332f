"""Pretraining from Python: on texts, or on a prepared directory."""

import json

import huggingface_hub
import pytest

from bertjax.program.errors import UserError
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain import pretrain
from tests.train.finetune_runs import one_device

pytestmark = pytest.mark.usefixtures("known_rate")

FIELDS = {
    "model": {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2},
    "intermediate_size": 13,
    "steps": 4,
    "batch_size": 8,
    "log_every": 1,
    "evaluation": {"every": 2, "batch_size": 8},
    "learning_rate": 1e-2,
}
PREPARATION = {"max_length": 32, "validation_fraction": 0.1, "test_fraction": 0.1}


@pytest.fixture(scope="module")
def texts(corpus):
    return corpus.read_text(encoding="utf-8").split("\n\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, texts, tokenizer, known_rate):
    """A run on texts."""
    run = tmp_path_factory.mktemp("pretrained_on_texts") / "run"
    return pretrain(
        texts, run=run, tokenizer=tokenizer, preparation=PREPARATION, mesh=one_device(), **FIELDS
    )


def assert_same_bits(one, other):
    weights = [
        (result.model_directory / "model.safetensors").read_bytes() for result in (one, other)
    ]
    assert weights[0] == weights[1]
    lines = [
        [{name: line[name] for name in line if name != "timing"} for line in result.history]
        for result in (one, other)
    ]
    assert lines[0] == lines[1]


def test_result_is_what_stands_in_the_run_directory(whole):
    assert whole.history == read_metrics(whole.run / "metrics.jsonl")
    assert [line["step"] for line in whole.history if line["split"] == "train"] == [1, 2, 3, 4]
    assert whole.scores["step"] == 4
    assert whole.scores["test"]["loss"] > 0
    card = json.loads((whole.run / "prepared" / "data_card.json").read_text())
    assert card["max_length"] == 32
    assert [source["name"] for source in card["sources"]] == ["documents.jsonl"]


@pytest.mark.whole
def test_texts_give_the_bits_of_the_prepared_directory(whole, tmp_path, capfd):
    rows = whole.run / "prepared"
    result = pretrain(rows, run=tmp_path / "run", mesh=one_device(), **FIELDS)
    assert_same_bits(whole, result)
    assert capfd.readouterr() == ("", "")


def test_model_of_the_hub_is_begun_with(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **options: str(whole.model_directory)
    )
    fields = {name: FIELDS[name] for name in FIELDS if name not in ("model", "intermediate_size")}
    rows = whole.run / "prepared"
    with pytest.raises(UserError, match=r"hidden_size=12 does not fit model.init=org/name, where"):
        pretrain(rows, run=tmp_path / "run", **fields, init="org/name", hidden_size=12)
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="org/name"):
        pretrain(rows, run=tmp_path / "run", **fields, init="org/name")


def test_interrupted_run_on_texts_goes_on_to_the_same_bits(whole, texts, tokenizer, tmp_path):
    def interrupt(line):
        if "step 2: validation" in line:
            raise KeyboardInterrupt

    options = {"run": tmp_path / "run", "tokenizer": tokenizer, "preparation": PREPARATION}
    options |= {"mesh": one_device(), **FIELDS}
    first = pretrain(texts, progress=interrupt, **options)
    assert (first.stopped, first.scores) == ("SIGINT", {})
    with pytest.raises(UserError, match=r"was begun with other texts"):
        pretrain(texts[1:], **options)
    assert_same_bits(whole, pretrain(texts, **options))
    # A finished run is left alone, and has its scores.
    assert pretrain(texts, **options).scores["test"] == whole.scores["test"]


@pytest.mark.whole
def test_tokenizer_is_made_of_the_texts(texts, tmp_path):
    result = pretrain(
        texts, run=tmp_path / "run", vocab_size=300, preparation=PREPARATION, dry_run=True,
        mesh=one_device(), **FIELDS,
    )  # fmt: skip
    assert result.scores == {}
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"vocab_size=99999 is more than the text supports"):
        pretrain(texts, run=tmp_path / "run", vocab_size=99999, **FIELDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"texts need a tokenizer .* or the size of one"),
        ({"tokenizer": "t", "vocab_size": 99}, r"texts need a tokenizer .*give one of the two"),
        ({"vocab_size": 99, "preparation": {"max_len": 3}}, r"unknown key max_len; did you mean"),
        ({"vocab_size": 99, "minutes": 3, "steps": 3}, r"give exactly one of budget.steps"),
        ({"vocab_size": 99, "sizes": "mini"}, r"unknown key sizes; did you mean 'model.size'"),
    ],
)
def test_wrong_argument_is_refused_before_anything_is_prepared(texts, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        pretrain(texts, run=tmp_path / "run", **{"steps": 3, **arguments})
    assert not (tmp_path / "run").exists()


def test_options_of_texts_are_refused_for_rows(whole, tmp_path):
    with pytest.raises(UserError, match=r"^vocab_size is for texts, and data=.* is prepared"):
        pretrain(whole.run / "prepared", run=tmp_path / "run", vocab_size=99, **FIELDS)


def test_document_that_is_no_text_is_named(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"^text 2: 3 \(int\) is not a text; give strings$"):
        pretrain(["a text", 3], run=tmp_path / "run", tokenizer=tokenizer, **FIELDS)
