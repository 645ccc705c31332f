"""Pruned models: what is left is the model with its gates closed, on disk and in training."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from bertjax.analysis.heads.importance import gates_without
from bertjax.analysis.heads.objective import Measured
from bertjax.analysis.heads.pruning import (
    blank_heads,
    choose_heads,
    drop_heads,
    heads_by_layer,
    read_heads,
)
from bertjax.analysis.heads.pruning_study import describe_measured
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.loaded import load
from bertjax.model.bert import BertForPreTraining
from bertjax.model.probe_points import gate_heads
from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import recall, remember
from tests.analysis.saved import save
from tests.analysis.wired import CONFIG, HEAD, LAYER, make_wired_model

TINY = Path(__file__).parents[2] / "parity" / "golden" / "tiny_bert"  # L=5, N=4
REMOVED = np.array([[0, 1], [0, 3], [2, 0], [1, 2], [1, 1], [2, 1]])  # two of every layer of three
IDS = np.array([[2, 7, 5, 8, 3], [2, 6, 9, 3, 0]])


@pytest.fixture(scope="module")
def wired():
    """The model, its other heads no longer so small that nobody would miss them."""
    whole = make_wired_model()
    random = np.random.default_rng(0)
    attention = whole.params["bert"]["encoder"]["layers"]["attention"]
    for part in attention.values():
        for name in part:
            part[name] = part[name] + random.normal(0, 0.1, part[name].shape).astype(np.float32)
    return whole


@pytest.fixture(scope="module")
def forward(wired):
    return jax.jit(
        lambda params, gates: wired.module.apply(
            {"params": params}, jnp.asarray(IDS), edit=gate_heads(gates)
        )
    )


@pytest.fixture(scope="module")
def without(wired, forward):
    """The logits with closed gates."""
    logits = forward(wired.params, gates_without((3, 4), REMOVED)).logits
    assert not np.allclose(logits, forward(wired.params, np.ones((3, 4))).logits, atol=0.01)
    return logits


@pytest.fixture
def directories(wired, tmp_path):
    """A model directory, and a labelled file for it."""
    wired.tokenizer.save(tmp_path / "tokenizer")
    save_model_directory(
        tmp_path / "model",
        CONFIG,
        make_wired_model().params,
        tmp_path / "tokenizer",
        "BertForSequenceClassification",
    )
    data = tmp_path / "data.tsv"
    rows = ["a b red c\tred", "blue d\tblue", "e f g blue\tblue", "red\tred", "red k j\tred"]
    data.write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return tmp_path / "model", data


def test_pruned_model_remembers_how_its_files_are_read(bertjax_command, directories, tmp_path):
    model, data = directories
    remember(model, DataConfig(label_column="kind", quoting="double"))
    path = tmp_path / "renamed.tsv"
    path.write_text(data.read_text().replace("label", "kind", 1))
    output = tmp_path / "pruned"
    code, _, err = bertjax_command(
        "prune", "--model", model, "--data", path, "--heads", "1-1", "--output", output
    )
    assert code == 0, err
    assert recall(output) == recall(model) == {"label_column": "kind", "quoting": "double"}


def find_blank_heads(params):
    """Which heads add nothing: their output kernels are 0."""
    kernel = np.asarray(params["bert"]["encoder"]["layers"]["attention"]["output"]["kernel"])
    return (kernel == 0).all(axis=(2, 3))


def test_blank_heads_are_closed_gates(wired, forward, without):
    before = jax.tree.map(np.array, wired.params)
    params = blank_heads(wired.params, REMOVED)
    output = forward(params, np.ones((3, 4)))
    np.testing.assert_allclose(output.logits, without, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, wired.params, before)  # the old ones are as before
    blank = find_blank_heads(params)
    assert sorted(map(tuple, np.argwhere(blank).tolist())) == sorted(map(tuple, REMOVED.tolist()))
    assert not find_blank_heads(wired.params).any()


def test_training_does_not_bring_a_blank_head_back(wired):
    params = blank_heads(wired.params, REMOVED)

    @jax.jit
    def differentiate(params):
        return jax.grad(
            lambda params: (
                wired.module.apply({"params": params}, jnp.asarray(IDS)).logits[..., 0].sum()
            )
        )(params)

    attention = differentiate(params)["bert"]["encoder"]["layers"]["attention"]
    blank = find_blank_heads(params)
    for projection, name, axis in (
        ("query", "kernel", 2), ("query", "bias", 1), ("value", "kernel", 2), ("value", "bias", 1),
        ("key", "kernel", 2), ("output", "kernel", 1),
    ):  # fmt: skip
        by_head = np.moveaxis(np.asarray(attention[projection][name]), axis, 1)
        np.testing.assert_array_equal(by_head[blank], 0, err_msg=f"{projection} {name}")
        assert np.abs(by_head[~blank]).max() > 0, f"{projection} {name}"


def test_model_with_smaller_tensors_is_the_model_with_closed_gates(wired, without, tmp_path):
    config, params = drop_heads(CONFIG, wired.params, REMOVED)
    assert (config.num_attention_heads, config.head_size, config.hidden_size) == (2, 8, 32)
    kernel = params["bert"]["encoder"]["layers"]["attention"]["output"]["kernel"]
    assert kernel.shape == (3, 2, 8, 32)
    wired.tokenizer.save(tmp_path / "tokenizer")
    name = "BertForSequenceClassification"
    save_model_directory(tmp_path / "model", config, params, tmp_path / "tokenizer", name)
    loaded = load_model_directory(tmp_path / "model")
    assert loaded.config == config
    model = type(wired.module)(loaded.config)
    output = jax.jit(model.apply)({"params": loaded.params}, IDS)
    np.testing.assert_allclose(output.logits, without, rtol=1e-5, atol=1e-5)
    tensor = load_file(tmp_path / "model" / "model.safetensors")[
        "bert.encoder.layer.0.attention.self.query.weight"
    ]
    assert tensor.shape == (16, 32)


@pytest.mark.parametrize("removed", [REMOVED[:-1], np.argwhere(np.ones((3, 4)))])
def test_unequal_layers_or_all_heads_do_not_leave_the_tensors(wired, removed):
    with pytest.raises(ValueError, match="same number of heads must leave every layer"):
        drop_heads(CONFIG, wired.params, removed)


def test_least_important_heads_are_chosen():
    importance = np.array([[4, 1, 3, 2], [9, 8, 7, 6], [0, 5, 11, 12]])
    assert choose_heads(importance, 4).tolist() == [[2, 0], [0, 1], [0, 3], [0, 2]]
    chosen = choose_heads(importance, 6, per_layer=True)
    assert chosen.tolist() == [[0, 1], [0, 3], [1, 3], [1, 2], [2, 0], [2, 1]]
    assert heads_by_layer(chosen) == {"0": [1, 3], "1": [2, 3], "2": [0, 1]}


@pytest.mark.parametrize(
    ("wanted", "per_layer", "number"),
    [("40%", False, 5), ("5", False, 5), ("100%", False, 12), ("40%", True, 6), ("3", True, 3)],
)
def test_number_of_heads_is_read(wanted, per_layer, number):
    assert read_heads(wanted, CONFIG, per_layer=per_layer) == number


@pytest.mark.parametrize(
    ("wanted", "per_layer", "message"),
    [
        ("many", False, "--heads many: give a share of all heads, for instance 40%, or their"),
        ("0.4", False, "give a share of all heads"),
        ("nan%", False, "give a share of all heads"),
        ("inf%", True, "give a share of all heads"),
        ("1%", False, "is 0 of the model's 12 heads; between 1 and 12 can go"),
        ("13", False, "is 13 of the model's 12 heads"),
        ("-3", False, "is -3 of the model's 12 heads"),
        ("5", True, "the same number leaves each of the 3 layers; give a multiple of 3"),
        ("100%", True, "is 12 of the model's 12 heads; between 3 and 9 can go"),
    ],
)
def test_bad_number_of_heads_is_refused(wanted, per_layer, message):
    with pytest.raises(UserError, match=message):
        read_heads(wanted, CONFIG, per_layer=per_layer)


# ------------------------------------------------------------------ the command


def test_command_writes_a_model_without_its_least_important_heads(
    bertjax_command, directories, tmp_path
):
    model, data = directories
    output = tmp_path / "pruned"
    code, out, err = bertjax_command(
        "prune", "--model", model, "--data", data, "--heads", "11", "--output", output
    )
    assert code == 0, err
    assert "11 of 12 heads, 5 examples" in out
    assert "as large and as slow" in err
    assert "scores are on what the heads were chosen on" in err
    report = json.loads((output / "pruning.json").read_text())
    assert report["before"]["score"] == report["after"]["score"] == 1
    assert np.mean([draw["score"] for draw in report["random_heads"]]) < 1
    losses = [draw["loss"] for draw in report["random_heads"]]
    assert f"{min(losses):.4f} to {max(losses):.4f}" in out
    left = {(layer, head) for layer in range(3) for head in range(4)}
    left -= {
        (int(layer), head) for layer, heads in report["removed_heads"].items() for head in heads
    }
    assert left == {(LAYER, HEAD)}
    assert np.argmax(report["importance"]["value"]) == LAYER * 4 + HEAD
    config, params, *_ = load_model_directory(output)
    assert config == load_model_directory(model).config
    assert np.argwhere(~find_blank_heads(params)).tolist() == [[LAYER, HEAD]]
    # Names and shapes are those of any BERT, so that every program loads it.
    old, new = (load_file(path / "model.safetensors") for path in (model, output))
    assert {name: value.shape for name, value in new.items()} == {
        name: value.shape for name, value in old.items()
    }


@pytest.mark.parametrize("by", ["ablation", "random"])
def test_command_shrinks_and_measures_on_other_files(bertjax_command, directories, tmp_path, by):
    model, data = directories
    other = tmp_path / "other.tsv"
    other.write_text("text\tlabel\na red\tred\nb blue\tblue\n", encoding="utf-8")
    output = tmp_path / "pruned"
    code, out, err = bertjax_command(
        *("prune", "--model", model, "--data", data, "--test", other, "--heads", "75%"),
        *("--by", by, "--shrink", "--json", "--seed", 3, "--output", output),
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["removed"], report["examples"], report["shrunk"]) == (9, 2, True)
    assert {len(heads) for heads in report["removed_heads"].values()} == {3}
    if by == "ablation":
        assert report["after"]["score"] == 1
        assert HEAD not in report["removed_heads"][str(LAYER)]
        assert np.argmin(report["importance"]["score_changes"]) == LAYER * 4 + HEAD
    assert "only bertjax loads it" in err
    assert "--test" not in err
    config = load_model_directory(output).config
    assert (config.num_attention_heads, config.attention_head_size) == (1, 8)


def test_command_prunes_by_the_masked_lm_loss(bertjax_command, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("this is a cat\n\nthey were all of us\n", encoding="utf-8")
    output = tmp_path / "pruned"
    code, out, err = bertjax_command(
        *("prune", "--model", TINY, "--text", text, "--heads", "40%", "--output", output, "--json")
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["removed"], report["heads"], report["examples"]) == (8, 20, 2)
    assert report["after"]["loss"] != report["before"]["loss"]
    low, high = report["after"]["loss_interval"]
    assert low <= report["after"]["loss"] <= high
    # What is on the disk has the loss that the report tells of.
    from bertjax.analysis.capture.encoding import encode_texts
    from bertjax.analysis.heads.objective import masked_language_objective

    whole = load(output)
    assert isinstance(whole.module, BertForPreTraining)
    texts = encode_texts(whole.tokenizer, ["this is a cat", "they were all of us"], 17)
    measured = masked_language_objective(whole, texts).measure(whole.params)
    assert measured.loss == pytest.approx(report["after"]["loss"], rel=1e-5)


def test_named_heads_are_removed_and_no_others(bertjax_command, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("this is a cat\n\nthey were all of us\n", encoding="utf-8")
    output = tmp_path / "pruned"
    code, out, err = bertjax_command(
        *("prune", "--model", TINY, "--text", text, "--heads", "3-1, 0-2,3-0", "--json"),
        *("--output", output),
    )
    assert code == 0, err
    assert "text.txt: 1 of 3 lines are empty and are passed over" in err
    report = json.loads(out)
    assert report["removed_heads"] == {"0": [2], "3": [0, 1]}
    assert (report["by"], report["removed"], report["heads"]) == ("name", 3, 20)
    assert report["chosen_on"] is report["importance"] is None
    assert report["measured_on"] == [str(text)]
    before, after = (load_model_directory(path).params for path in (TINY, output))
    expected = blank_heads(before, np.array([[0, 2], [3, 0], [3, 1]]))
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_named_heads_shrink_the_tensors_where_every_layer_loses_as_many(
    bertjax_command, directories, tmp_path
):
    model, data = directories
    words = ("prune", "--model", model, "--data", data, "--shrink", "--output", tmp_path / "pruned")
    code, _, err = bertjax_command(*words, "--heads", "0-1,1-2,2-3")
    assert code == 0, err
    assert load_model_directory(tmp_path / "pruned").config.num_attention_heads == 3
    for heads, message in (
        ("0-1,1-2", "these are 1 of layer 0, 1 of layer 1, 0 of layer 2; name as many of each"),
        (",".join(f"{k // 4}-{k % 4}" for k in range(12)), "one head of every layer stays"),
    ):
        code, _, err = bertjax_command(*words, "--heads", heads)
        assert (code, message in err) == (2, True), err


def test_score_that_is_not_defined_is_null_in_json(bertjax_command, tmp_path):
    model = save(tmp_path, "BertForSequenceClassification", id2label=("score",))
    data = tmp_path / "data.csv"
    data.write_text("text,label\nthe dog,0.5\n", encoding="utf-8")  # nothing correlates with it
    output = tmp_path / "pruned"
    code, out, err = bertjax_command(
        *("prune", "--model", model, "--data", data, "--heads", "2", "--output", output, "--json")
    )
    assert code == 0, err
    for text in (out, (output / "pruning.json").read_text()):
        report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert report["before"]["score"] is report["after"]["score"] is None
        assert report["random_heads"][0]["score"] is None
        assert report["before"]["loss"] > 0
    code, out, _ = bertjax_command(
        *("prune", "--model", model, "--data", data, "--heads", "2", "--output", output)
    )
    assert (code, "nan" in out) == (0, False)


def test_score_of_one_example_has_no_interval():
    measured = Measured(np.array([3.0]), np.array([2.0]), 1.0)
    told = describe_measured(measured, np.zeros(1, int))
    assert told == {"score": 1.0, "loss": 1.5, "loss_interval": None}


def test_interval_of_the_loss_draws_texts_and_not_their_windows():
    sums, counts = np.repeat([1.0, 3.0], 50), np.ones(100)
    measured = Measured(sums, counts, 1.0)
    low, high = describe_measured(measured, np.repeat([0, 1], 50))["loss_interval"]
    assert (low, high) == (1.0, 3.0)
    low, high = describe_measured(measured, np.arange(100))["loss_interval"]
    assert 1.5 < low < high < 2.5


def test_command_refuses(bertjax_command, directories, tmp_path):
    model, data = directories
    rest = ("--heads", "40%", "--output", tmp_path / "pruned")
    for arguments, message in (
        (("--model", model, "--text", data, *rest), "has no masked-LM head"),
        (("--model", model, "--data", data, "--heads", "x", *rest[2:]), "--heads x: give a share"),
        (("--model", model, "--data", data, *rest[:3], model), "is the model itself"),
        (("--model", model, "--data", data, *rest[:3], data), "is a file; name a folder"),
        (
            ("--model", model, "--data", data, *rest[:3], tmp_path),
            "holds files, and no pruning.json",
        ),
        (("--model", model, "--data", data, "--max-examples", "0", *rest), "must be at least 1"),
        (
            ("--model", model, "--data", data, "--heads", "3-0", *rest[2:]),
            "there is no head 3-0; heads are named layer-head, from 0-0 to 2-3",
        ),
        (
            ("--model", model, "--data", data, "--heads", "0-0,0-0", *rest[2:]),
            "names 0-0 twice; name each head once",
        ),
        (
            ("--model", model, "--data", data, "--heads", "0-0", "--by", "random", *rest[2:]),
            "--by is for heads that are chosen, and --heads 0-0 names them; leave it out",
        ),
        (
            ("--model", model, "--data", data, "--heads", "0-0", "--test", data, *rest[2:]),
            "--test is for heads that are chosen",
        ),
        (
            ("--model", model, "--data", data, "--by", "random", "--normalize-layers", *rest),
            "--normalize-layers applies to --by importance",
        ),
        (
            ("--model", TINY, "--text", data, "--label-column", "x", *rest),
            "--label-column applies to labelled files, and none are read; name them with --data",
        ),
        (
            ("--model", TINY, "--text", data, "--scheme", "IOB2", *rest),
            "--scheme applies to labelled",
        ),
        (("--model", TINY, "--data", data, *rest), "has no head of a supervised task"),
        (("--model", model, *rest), "give one of --data (labelled files), --input"),
    ):
        code, out, err = bertjax_command("prune", *arguments)
        assert (code, out) == (2, ""), message
        assert message in err
        assert not (tmp_path / "pruned").exists()
