"""A temperature: the one that is best, in the directory, and in all that is said from there."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import bertjax
from bertjax.inference import calibration
from bertjax.inference.calibration import Decisions, calibrate_directory, fit_temperature
from bertjax.inference.labelled import read_labelled
from bertjax.program.errors import UserError
from bertjax.tasks.task import softmax
from tests.analysis.saved import save
from tests.serving.running import http, running

LABELS = ("bad", "fair", "good")
TEXTS = [
    f"the {how} {one} {verb} a {other}"
    for how in ("old", "red", "good", "bad")
    for one in ("dog", "cat", "bird")
    for verb in ("sees", "hears")
    for other in ("dog", "cat", "bird")
]


def test_temperature_is_that_by_which_the_logits_were_too_large():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20_000, 4))
    gold = np.array([random.choice(4, p=one) for one in softmax(logits)])
    for temperature in (0.5, 1.0, 3.0):
        decisions = Decisions(temperature * logits, gold)
        assert fit_temperature(decisions) == pytest.approx(temperature, rel=0.03)
    # A decision with fewer alternatives has others of probability 0.
    ragged = Decisions(np.array([[1.0, 2.0, -np.inf], [0.0, 1.0, 2.0]]), np.array([0, 2]))
    assert ragged.log_loss(2.0) == pytest.approx(
        -np.log([softmax(np.array([0.5, 1.0]))[0], softmax(np.array([0, 0.5, 1.0]))[2]]).mean()
    )


def test_answers_that_are_all_right_fit_no_temperature():
    with pytest.raises(UserError, match="of which 9 of 9 answers are right; give more examples"):
        fit_temperature(Decisions(np.eye(3)[np.arange(9) % 3], np.arange(9) % 3))


def test_answers_that_are_no_numbers_are_refused(made):
    model = bertjax.load(made[0])
    spoiled = model.replace(params=jax.tree.map(lambda leaf: leaf * np.nan, model.params))
    for ask, data in (
        (spoiled.predict, TEXTS[:1]),
        (spoiled.evaluate, made[1]),
        (spoiled.calibrate, made[1]),
    ):
        with pytest.raises(UserError, match="the model's output is not finite"):
            ask(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, and examples of which every third has the label that the model gives it."""
    folder = tmp_path_factory.mktemp("calibration")
    directory = save(folder, "BertForSequenceClassification", id2label=LABELS)
    said = bertjax.load(directory).predict(TEXTS)
    rows = ["text,label"]
    for number, (text, one) in enumerate(zip(TEXTS, said, strict=True)):
        rows.append(f"{text},{one.label if number % 3 else LABELS[number // 3 % 3]}")
    (folder / "data.csv").write_text("\n".join(rows) + "\n")
    return directory, folder / "data.csv"


@pytest.fixture
def calibrated(made, tmp_path, bertjax_command):
    """The model before, a directory of it with a temperature, and what the command said of it."""
    directory, data = made
    shutil.copytree(directory, tmp_path / "model")
    words = ("--model", tmp_path / "model", "--data", data, "--resamples", 0, "--calibrate")
    code, out, err = bertjax_command("evaluate", *words, "--json")
    assert code == 0, err
    assert "measure calibration on others" in err
    return bertjax.load(directory), tmp_path / "model", json.loads(out)["calibration"]


def test_every_program_has_the_calibrated_probabilities(calibrated, made, bertjax_command):
    before, directory, record = calibrated
    temperature = record["temperature"]
    assert abs(temperature - 1) > 0.1  # else there is nothing to see
    assert record["log_loss"]["after"] < record["log_loss"]["before"]
    assert record["changed_answers"] == 0
    old = before.predict(TEXTS)
    logits = np.log([[one.probabilities[label] for label in LABELS] for one in old])
    expected = softmax(logits / temperature)

    new = bertjax.load(directory).predict(TEXTS)
    assert [one.label for one in new] == [one.label for one in old]
    given = [[one.probabilities[label] for label in LABELS] for one in new]
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert np.abs(expected - np.exp(logits)).max() > 0.01

    code, out, _ = bertjax_command("predict", "--model", directory, TEXTS[5])
    assert code == 0
    command = json.loads(out)["probabilities"]
    np.testing.assert_allclose([command[label] for label in LABELS], expected[5], atol=1e-5)

    words = ("--model", directory, "--data", made[1], "--resamples", 0, "--json")
    evaluated = json.loads(bertjax_command("evaluate", *words)[1])["scores"]
    assert evaluated["loss"] == pytest.approx(record["log_loss"]["after"], abs=1e-5)
    error = record["calibration_error"]["after"]
    assert evaluated["calibration_error"] == pytest.approx(error, abs=1e-5)

    served = serve(directory, TEXTS[5])
    np.testing.assert_allclose(served, expected[5], atol=1e-5)

    [explained] = bertjax.load(directory).explain(TEXTS[5], answer=new[5].label)
    assert explained.probability == pytest.approx(expected[5].max(), abs=1e-5)


def serve(directory, text):
    """The probabilities of the classes that a server says."""
    with running({"one": bertjax.load(directory)}) as (address, _):
        answer = http.post(f"{address}/predict", json={"inputs": text}, timeout=60)
    scores = {one["label"]: one["score"] for one in answer.json()}
    return [scores[label] for label in LABELS]


def test_only_the_last_layer_is_written_and_info_says_so(calibrated, made, bertjax_command):
    _, directory, record = calibrated
    old, new = (load_file(one / "model.safetensors") for one in (made[0], directory))
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    for name in changed:
        np.testing.assert_allclose(new[name], old[name] / record["temperature"], rtol=1e-6)
    kept = {file.name: file.read_bytes() for file in made[0].iterdir()}
    assert {file.name for file in directory.iterdir()} == {*kept, "bertjax_calibration.json"}
    for name, content in kept.items():
        assert (name == "model.safetensors") or (directory / name).read_bytes() == content
    code, out, _ = bertjax_command("info", directory, "--json")
    assert (code, json.loads(out)["calibration"]) == (0, record)
    assert "calibration" not in json.loads(bertjax_command("info", made[0], "--json")[1])


def test_temperature_is_kept_by_save_and_convert(calibrated, bertjax_command, tmp_path):
    _, directory, record = calibrated
    model = bertjax.load(directory)
    expected = model.predict(TEXTS[:3])
    model.save(tmp_path / "saved")
    words = ("--model", directory, "--output", tmp_path / "converted")
    assert bertjax_command("convert", *words)[0] == 0
    for folder in (tmp_path / "saved", tmp_path / "converted"):
        assert json.loads((folder / "bertjax_calibration.json").read_text()) == record
        assert bertjax.load(folder).predict(TEXTS[:3]) == expected
    # What has no classifier has no temperature, either.
    body = bertjax.load(directory, "BertModel")
    body.save(tmp_path / "saved_body")
    body.export(tmp_path / "exported_body")
    line = (*words[:-1], tmp_path / "converted_body", "--architecture", "BertModel")
    assert bertjax_command("convert", *line)[0] == 0
    for name in ("saved_body", "exported_body", "converted_body"):
        assert (tmp_path / name / "config.json").exists()
        assert not (tmp_path / name / "bertjax_calibration.json").exists()
    # Other weights in the same place have none.
    made = bertjax.load(directory).replace(directory=None)
    made.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "bertjax_calibration.json").exists()


def test_model_in_memory_is_calibrated_as_a_directory_is(calibrated, made, tmp_path):
    before, directory, record = calibrated
    model = before.calibrate(str(made[1]))
    kept = bertjax.load(directory)
    assert model.calibration == record == kept.calibration
    assert before.calibration == model.as_architecture("body").calibration == {}
    shares = [
        [list(answer.probabilities.values()) for answer in one.predict(TEXTS)]
        for one in (before, model, kept)
    ]
    np.testing.assert_allclose(shares[1], shares[2], atol=1e-6)
    assert np.abs(np.subtract(shares[0], shares[1])).max() > 0.01
    assert not (made[0] / "bertjax_calibration.json").exists()
    assert repr(model).endswith(f"changed from {before.directory})")

    model.save(tmp_path / "saved")
    again = bertjax.load(tmp_path / "saved")
    assert (again.calibration, again.is_changed) == (record, False)
    assert again.predict(TEXTS[:1]) == model.predict(TEXTS[:1])
    twice = model.calibrate(str(made[1])).calibration
    assert twice["temperature"] == pytest.approx(record["temperature"], rel=1e-3)
    before.save(tmp_path / "saved")  # its weights have no temperature
    assert bertjax.load(tmp_path / "saved").calibration == {}


def test_second_temperature_is_on_top_of_the_first(calibrated, made, bertjax_command):
    _, directory, record = calibrated
    words = ("--model", directory, "--data", made[1], "--resamples", 0, "--calibrate", "--json")
    again = json.loads(bertjax_command("evaluate", *words)[1])["calibration"]
    # On the same examples the best is there already.
    assert again["temperature"] == pytest.approx(record["temperature"], rel=1e-3)
    assert again["log_loss"]["before"] == pytest.approx(record["log_loss"]["after"], abs=1e-6)


def test_products_in_few_bits_are_calibrated_again_and_again(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "model")
    for _ in range(4):  # from the second time on there is less to gain than is rounded
        model = bertjax.load(tmp_path / "model", dtype="bfloat16")
        record = calibrate_directory(model, read_labelled(model, [str(made[1])]))
    assert record["log_loss"]["after"] == pytest.approx(record["log_loss"]["before"], abs=0.01)


def test_temperature_that_is_not_in_the_logits_is_not_kept(made, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "fold_temperature", lambda params, *more: params)
    shutil.copytree(made[0], tmp_path / "model")
    model = bertjax.load(tmp_path / "model")
    with pytest.raises(RuntimeError, match="not those of the temperature"):
        calibrate_directory(model, read_labelled(model, [str(made[1])]))
    assert not (tmp_path / "model" / "bertjax_calibration.json").exists()


@pytest.mark.parametrize(
    ("architecture", "fields", "data", "more", "message"),
    [
        (
            "BertForSequenceClassification",
            {"id2label": ("score",), "problem_type": "regression"},
            "text,label\na cat,0.5\nthe dog,1\n",
            (),
            "a model for regression has no probabilities that a temperature",
        ),
        (
            "BertForSequenceClassification",
            {"id2label": ("bad", "good")},
            "text,label\na cat,good\nthe dog,bad\n",
            ("--without-heads", "0-1"),
            "--calibrate is of the whole model; leave --without-heads out",
        ),
        ("BertForMaskedLM", {}, "a cat\n", (), "--calibrate is for labelled files"),
    ],
)
def test_what_has_no_temperature_is_refused(
    bertjax_command, tmp_path, architecture, fields, data, more, message
):
    directory = save(tmp_path, architecture, **fields)
    file = tmp_path / ("data.txt" if "MaskedLM" in architecture else "data.csv")
    file.write_text(data)
    words = ("--model", directory, "--data", file, "--calibrate")
    code, _, err = bertjax_command("evaluate", *words, *more)
    assert (code, message in err) == (2, True), err
    assert not (directory / "bertjax_calibration.json").exists()


def test_weights_in_few_bits_are_refused(made, bertjax_command, tmp_path):
    narrow = tmp_path / "narrow"
    words = ("--model", made[0], "--output", narrow, "--dtype", "bfloat16")
    assert bertjax_command("convert", *words)[0] == 0
    before = (narrow / "model.safetensors").read_bytes()
    code, _, err = bertjax_command("evaluate", "--model", narrow, "--data", made[1], "--calibrate")
    assert code == 2
    assert "stored as BF16" in err
    assert "--dtype float32" in err
    assert (narrow / "model.safetensors").read_bytes() == before
