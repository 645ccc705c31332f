"""Fine-tuning from Python: a function of model and examples, with a result."""

import dataclasses
import json
from contextlib import ExitStack

import huggingface_hub
import jax
import pytest

import bertjax
from bertjax.program.errors import UserError
from bertjax.training import run_directory
from bertjax.training.finetune import _find_start, finetune
from bertjax.training.metrics import read_metrics
from tests.train.finetune_runs import one_device, write_classes

pytestmark = pytest.mark.usefixtures("known_rate")

FIELDS = {
    "steps": 12,
    "learning_rate": 1e-2,
    "checkpoint": {"every": 5},
    "max_length": 17,
    "batch_size": 16,
    "log_every": 3,
    "validation_share": 0.1,
    "test_share": 0.1,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = write_classes(tmp_path_factory.mktemp("rows") / "classes.tsv")
    lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return [{"label": label, "text": text} for label, text in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pretrained, rows, known_rate):
    """A run on rows in memory, and what it told."""
    lines = []
    run = tmp_path_factory.mktemp("whole") / "run"
    result = finetune(
        pretrained, "classification", rows, run=run, mesh=one_device(), progress=lines.append,
        **FIELDS,
    )  # fmt: skip
    return result, lines


def without_timing(history):
    return [{name: line[name] for name in line if name != "timing"} for line in history]


def assert_same_bits(one, other):
    weights = [
        (result.model_directory / "model.safetensors").read_bytes() for result in (one, other)
    ]
    assert weights[0] == weights[1]
    assert without_timing(one.history) == without_timing(other.history)


def test_result_is_what_stands_in_the_run_directory(whole):
    result, lines = whole
    assert result.scores == json.loads((result.run / "eval_results.json").read_text())
    assert result.history == read_metrics(result.run / "metrics.jsonl")
    assert [line["step"] for line in result.history if line["split"] == "train"] == [3, 6, 9, 12]
    assert result.stopped is None
    assert any("sequence_head; one is initialised" in note for note in result.notes)
    assert repr(result).startswith(f"Result(run='{result.run}', over, history of ")
    # All that a person would have seen, and the notes among it.
    assert "on 1 cpu device(s)" in " ".join(lines)
    assert set(result.notes) <= set(lines)
    about = json.loads((result.run / "run.json").read_text())
    assert about["data"]["train"] == ["memory:train"]


@pytest.mark.whole
def test_rows_give_the_bits_of_the_same_rows_in_a_file(whole, pretrained, rows, tmp_path, capfd):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = finetune(
        pretrained, "classification", path, run=tmp_path / "run", mesh=one_device(), **FIELDS
    )
    assert_same_bits(whole[0], result)
    assert capfd.readouterr() == ("", "")
    # The same run, whichever way its rows are given.
    again = finetune(
        pretrained, "classification", rows, run=tmp_path / "run", mesh=one_device(), **FIELDS
    )
    assert again.scores == result.scores


@pytest.mark.whole
@pytest.mark.parametrize(
    "place",
    [
        "parameters",
        "step 6  ",
        pytest.param("step 6: validation", marks=pytest.mark.slow),
        pytest.param("kept step", marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_goes_on_to_the_same_bits(whole, pretrained, rows, tmp_path, place):
    def interrupt(line):
        if place in line and not interrupted:
            interrupted.append(line)
            raise KeyboardInterrupt

    interrupted = []
    arguments = (pretrained, "classification", rows)
    options = {"run": tmp_path / "run", "mesh": one_device(), **FIELDS}
    first = finetune(*arguments, progress=interrupt, **options)
    assert len(interrupted) == 1
    if place == "kept step":  # after the loop there is nothing to save
        assert first.stopped is None
    else:
        assert (first.stopped, first.scores) == ("SIGINT", {})
        assert "stopped by SIGINT" in repr(first)
        steps = [int(path.name) for path in (first.run / "checkpoints").iterdir()]
        assert max(steps) == (0 if place == "parameters" else 6)
    assert_same_bits(whole[0], finetune(*arguments, **options))


def test_run_without_a_directory_lives_as_long_as_its_result(pretrained, rows):
    result = finetune(
        pretrained, "classification", rows, mesh=one_device(), **FIELDS | {"steps": 1}
    )
    folder = result.run
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "eval_results.json").is_file()
    assert folder.resolve() not in run_directory._held
    del result
    assert not folder.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": 3}, r"unknown key epoch; did you mean 'budget.epochs'"),
        ({"epochs": "many"}, r"budget.epochs=many must be a number or null"),
        ({"epochs": 3, "steps": 4}, r"give exactly one of .*budget.steps=4, budget.epochs=3"),
        ({"model.init": "there"}, r"model.init is given twice"),
        ({"text_column": "body"}, r"^train row 1: no field 'body'"),
        (
            {"mesh": {"fsdp": 3}, "max_length": 17},
            r"mesh.fsdp=3 .*does not make the number of devices",
        ),
        ({"mesh": jax.make_mesh((8,), ("rows",))}, r"mesh has the axes \('rows',\), and a run"),
        ({"class_weights": "balance"}, r"class_weights=balance must be one of none, balanced"),
    ],
)
def test_wrong_field_is_refused_and_nothing_is_begun(pretrained, rows, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        finetune(pretrained, "classification", rows, run=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_model_of_a_run_is_loaded_and_goes_into_the_next(whole, rows, tmp_path):
    model = whole[0].model
    assert model is whole[0].model
    assert model.architecture == "BertForSequenceClassification"
    assert model.config.id2label == ("cat", "dog")
    options = {"run": tmp_path / "run", "mesh": one_device(), **FIELDS, "dry_run": True}
    result = bertjax.finetune(model, "classification", rows, **options)
    assert not [note for note in result.notes if "initialised" in note]
    with pytest.raises(UserError, match=r"run has no model yet"):
        result.model  # noqa: B018


def test_model_that_was_changed_is_saved_for_the_run(pretrained):
    model = bertjax.load(pretrained)
    saved = []

    class Changed(bertjax.Model):
        def save(self, folder):
            saved.append(folder)

    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    with ExitStack() as stack:
        assert _find_start(Changed(**fields), stack) == str(pretrained)
        fields["params"] = jax.tree.map(lambda leaf: 2 * leaf, model.params)
        assert _find_start(Changed(**fields), stack) == saved[0]


@pytest.mark.whole
def test_few_rows_on_a_model_of_the_hub(monkeypatch, pretrained, rows, tmp_path):
    asked = []

    def download(repo, revision, **options):
        asked.append((repo, revision))
        return str(pretrained)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    run = tmp_path / "run"
    fields = {name: FIELDS[name] for name in FIELDS if not name.endswith("_share")} | {"steps": 2}
    result = finetune(
        "org/name@v1", "classification", rows[:20], run=run, mesh=one_device(), **fields
    )
    assert {*asked} == {("org/name", "v1")}
    assert "init: org/name@v1" in (run / "config.yaml").read_text()
    assert "org/name@v1" in (result.model_directory / "README.md").read_text()
    # Too few to hold any out: nothing is scored, and that is said.
    assert not {"validation", "test"} & result.scores.keys()
    assert any("none are held out for validation and test" in note for note in result.notes)
    assert repr(result).endswith("no scores: there are no validation or test examples)")
    again = bertjax.load(result.model_directory).predict([rows[0]["text"]])
    assert again[0].label in {row["label"] for row in rows}


def test_name_on_the_hub_is_looked_up(monkeypatch, rows):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"nobody/nothing"):
        bertjax.finetune("nobody/nothing", "classification", rows)
