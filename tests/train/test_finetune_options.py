"""What a fine-tuning run makes of its options, and how it refuses wrong ones."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from bertjax.commands.finetune import read_config
from bertjax.families.registry import load_config
from bertjax.interop.huggingface import inspect_model_directory
from bertjax.numerics.placement import is_divided
from bertjax.program.errors import UserError
from bertjax.tasks.classification import Classification
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import read_task_data
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.budget import BudgetConfig
from bertjax.training.finetune_config import FinetuneConfig, ScoringConfig
from bertjax.training.optimizer import OptimizerConfig
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.starting_model import FinetunedModelConfig
from tests.train.finetune_runs import WORDS, make_config, run, write_classes

pytestmark = pytest.mark.usefixtures("known_rate")


@pytest.mark.whole
def test_loss_of_the_config_is_that_of_the_training_whoever_calls(tmp_path, pretrained):
    """Data is read without it. The loss of validation and test is the plain one."""
    rows = [f"{'dog' if number % 4 else 'cat'}\tthe of and\n" for number in range(64)]
    (tmp_path / "four.tsv").write_text("label\ttext\n" + "".join(rows))
    files = [str(tmp_path / "four.tsv")]
    config = make_config(
        tmp_path,
        pretrained,
        data=DataConfig(train=files, validation=files, test=files),
        model=FinetunedModelConfig(
            init=pretrained, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        ),
        budget=BudgetConfig(steps=1),
        optimizer=OptimizerConfig(learning_rate=1e-12),
        batch_size=64,
        log_every=1,
    )
    data, scored = read_task_data(config.task, config.data), []
    for name, value in (("label_smoothing", 0.9), ("class_weights", "balanced")):
        one = dataclasses.replace(config, run=str(tmp_path / name), **{name: value})
        assert run(one, data) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        trained, validated = (line["loss"] for line in lines[:2])
        assert abs(trained - validated) > 1e-3  # of the same examples and parameters
        scored.append(validated)
    assert scored[0] == pytest.approx(scored[1], rel=1e-5)


@pytest.mark.whole
def test_few_examples_without_a_word_are_all_learned(tmp_path, pretrained, capsys):
    path = write_classes(tmp_path / "few.tsv", 24)
    data = DataConfig(train=[str(path)])
    config = FinetuneConfig(
        run=str(tmp_path / "run"), data=data, model=FinetunedModelConfig(init=pretrained),
        max_length=17,
    )  # fmt: skip
    assert run(config) == 0
    said = capsys.readouterr().err
    assert "24 training examples, 0 for validation, 0 for the test" in said
    assert "150 steps of 8 examples (50 epochs)" in said
    assert "few to learn from" not in said
    assert "test none: no examples were held out for it" in said
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert not {"kept", "validation", "test"} & results.keys()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert len(lines) > 15
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.whole
def test_run_of_too_few_steps_says_so_before_it_begins(tmp_path, pretrained, capsys):
    config = make_config(tmp_path, pretrained, budget=BudgetConfig(epochs=0.5), dry_run=True)
    assert run(config) == 0
    said = capsys.readouterr().err
    assert "warning: 3 steps are too few to learn from" in said
    assert "--budget.steps 150" in said


@pytest.mark.slow
def test_model_on_several_devices_knows_that_they_are(tmp_path, pretrained, monkeypatch):
    """Else a kernel (attention=splash) is not divided, which jax refuses to compile."""
    mesh, known, loss = make_mesh(MeshConfig(), jax.devices()[:2]), [], Classification.loss

    def note(*arguments):
        known.append(is_divided())
        return loss(*arguments)

    monkeypatch.setattr(Classification, "loss", note)
    config = make_config(tmp_path, pretrained, budget=BudgetConfig(steps=1))
    assert run(config, mesh=mesh) == 0
    assert len(known) >= 3  # in training, at the validation and for the results
    assert all(known)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_head_normalisation_survives_saving(tmp_path, pretrained, norm):
    config = make_config(
        tmp_path,
        pretrained,
        model=FinetunedModelConfig(init=pretrained, classifier_norm=norm),
        budget=BudgetConfig(steps=24),
    )
    assert run(config) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    best = [line for line in lines if line.get("kept")][-1]
    # The model directory is scored anew at the end: folded, a batch normalisation says the same.
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["validation"]["loss"] == pytest.approx(best["loss"], rel=1e-4)
    saved = inspect_model_directory(tmp_path / "run" / "model").config
    assert saved.classifier_norm == ("none" if norm == "batch" else "layer")


@pytest.mark.whole
def test_top_layers_are_dropped_and_training_stops_early(tmp_path, pretrained):
    config = make_config(
        tmp_path,
        pretrained,
        model=FinetunedModelConfig(init=pretrained, num_hidden_layers=1),
        scoring=ScoringConfig(every_epochs=0.2, patience=2, score="macro_f1"),
        budget=BudgetConfig(steps=400),
    )
    assert run(config) == 0
    assert inspect_model_directory(tmp_path / "run" / "model").config.num_hidden_layers == 1
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text())["steps"] < 400


@pytest.mark.whole
def test_window_of_the_checkpoint_is_kept(tmp_path, pretrained):
    """Two layers in which a token sees one to either side: [CLS] learns of two words, no more."""
    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    values = json.loads((folder / "config.json").read_text())
    config = dataclasses.replace(load_config(folder), attention_window=1)
    (folder / "config.json").write_text(json.dumps(values | config.to_dict()))
    config = make_config(tmp_path, str(folder), budget=BudgetConfig(steps=3))
    path = tmp_path / "classes.tsv"
    path.write_text(path.read_text().replace("\t", "\tthe of ").replace("the of text", "text"))
    assert run(config) == 0
    assert inspect_model_directory(tmp_path / "run" / "model").config.attention_window == 1
    lines = (tmp_path / "run" / "predictions" / "predictions.jsonl").read_text().splitlines()
    found = [json.loads(line)["probabilities"]["cat"] for line in lines]
    assert len(found) > 3
    np.testing.assert_allclose(found, found[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": FinetunedModelConfig()}, "model.init is missing"),
        ({"max_length": 18}, r"max_length=18 is more than .* max_position_embeddings=17"),
        ({"scoring": ScoringConfig(score="acuracy")}, r"scoring.score='acuracy' is not one of"),
        ({"data": DataConfig()}, "data.train is empty"),
    ],
)
def test_wrong_options_are_named(tmp_path, pretrained, fields, message):
    with pytest.raises(UserError, match=message):
        run(make_config(tmp_path, pretrained, **fields))


@pytest.mark.parametrize("dry_run", [False, True])
def test_unknown_score_is_refused_before_anything_is_done(tmp_path, pretrained, dry_run):
    scoring = ScoringConfig(score="macro_f2")
    with pytest.raises(UserError, match=r"'macro_f2' is not one of: .*did you mean 'macro_f1'"):
        run(make_config(tmp_path, pretrained, scoring=scoring, dry_run=dry_run))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"score": "loss"}, {"patience": 2}])
def test_scoring_without_a_validation_split_is_refused(tmp_path, pretrained, fields):
    config = make_config(tmp_path, pretrained, scoring=ScoringConfig(**fields))
    data = dataclasses.replace(config.data, validation_share=0.0)
    with pytest.raises(UserError, match="look at the validation split, and there is none"):
        run(dataclasses.replace(config, data=data))


def test_more_layers_than_there_are_cannot_be_kept(tmp_path, pretrained):
    model = FinetunedModelConfig(init=pretrained, num_hidden_layers=3)
    with pytest.raises(UserError, match="between 1 and the 2 layers of"):
        run(make_config(tmp_path, pretrained, model=model))


@pytest.mark.whole
def test_tokenizer_of_another_model_is_refused_or_told(tmp_path, pretrained, capsys):
    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    model = FinetunedModelConfig(init=str(folder))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    Tokenizer(build_wordpiece(tokens, True, None)).save(folder)
    assert run(make_config(tmp_path, pretrained, model=model, dry_run=True)) == 0
    assert f"has {len(tokens)} tokens, the model embeddings for 99" in capsys.readouterr().err
    tokens += [f"word{number}" for number in range(99)]
    Tokenizer(build_wordpiece(tokens, True, None)).save(folder)
    with pytest.raises(UserError, match=r"tokens, more than the model's vocab_size=99"):
        run(make_config(tmp_path, pretrained, model=model))


def test_wrong_options_are_named_at_once():
    with pytest.raises(UserError, match="--run DIR is missing"):
        FinetuneConfig()
    with pytest.raises(UserError, match=r"label_smoothing=1.0"):
        FinetuneConfig(run="x", label_smoothing=1.0)
    with pytest.raises(UserError, match=r"batch_size=0 must be at least 1"):
        FinetuneConfig(run="x", batch_size=0)


@pytest.mark.slow
def test_several_seeds_are_summarised(tmp_path, pretrained, monkeypatch, capsys):
    arguments = [
        "--data.train", write_classes(tmp_path / "classes.tsv"), "--model.init", pretrained,
        "--run", tmp_path / "run", "--seeds", 2, "--budget.steps", 3, "--max-length", 17, "--json",
        "--data.validation-share", 0.2, "--data.test-share", 0.2,
    ]  # fmt: skip
    assert run(read_config(list(map(str, arguments)))) == 0
    summary = json.loads(capsys.readouterr().out)
    for split in ("validation", "test"):
        values = [
            json.loads((tmp_path / "run" / f"seed-{seed}" / "eval_results.json").read_text())[split]
            for seed in (0, 1)
        ]
        losses = [scores["loss"] for scores in values]
        assert summary[split]["loss"]["values"] == losses
        assert summary[split]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1]
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text()) == summary
