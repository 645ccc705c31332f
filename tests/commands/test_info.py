"""`bertjax info`: what it tells of models, runs, tokenizers and prepared directories."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from bertjax.families.registry import load_config
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import remember
from tests.prepared_rows import write_rows

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"


def write_run(path, lines, checkpoints=()):
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"program": "train.pretrain", "seed": 3}))
    (path / "config.yaml").write_text("seed: 3\n")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"step": 4')  # cut short by a kill
    for name in checkpoints:
        (path / "checkpoints" / name).mkdir(parents=True)


def test_info_of_a_name_on_the_hub(bertjax_command, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: str(TINY))
    code, out, _ = bertjax_command("info", "org/name", "--json")
    assert (code, json.loads(out)["kind"], json.loads(out)["path"]) == (0, "model", str(TINY))


def test_info_of_a_model(bertjax_command):
    code, out, _ = bertjax_command("info", TINY, "--json")
    about = json.loads(out)
    assert code == 0
    assert about["kind"] == "model"
    assert about["architecture"] == "BertForPreTraining"
    assert about["heads"] == ["pooler", "mlm_head", "nsp_head"]
    tokenizer = about["tokenizer"]
    assert (tokenizer["kind"], tokenizer["vocab_size"]) == ("WordPiece", 99)
    assert (about["hidden_size"], about["num_hidden_layers"]) == (24, 5)

    _, out, _ = bertjax_command("info", TINY)
    shown = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split()) > 1)
    assert shown["parameters"] == f"{about['parameters']:,}"
    assert shown["heads"] == "pooler, mlm_head, nsp_head"
    assert "attention_window" not in shown


def test_info_of_what_was_exported(bertjax_command, tmp_path):
    """Of the files alone, without reading one; of a model that has one beside its weights, too."""
    shutil.copytree(TINY, tmp_path / "made", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "made" / "onnx").mkdir()
    (tmp_path / "made" / "onnx" / "model_quantized.onnx").write_bytes(b"12345")
    code, out, _ = bertjax_command("info", tmp_path / "made", "--json")
    about, model = json.loads(out), json.loads(bertjax_command("info", TINY, "--json")[1])
    assert code == 0
    assert about.pop("kind") == "exported"
    assert about.pop("files") == {"onnx/model_quantized.onnx": 5}
    assert about.keys() == model.keys() - {"kind", "parameters", "stored_as", "heads"}
    assert all(about[name] == model[name] for name in about.keys() - {"path"})

    shutil.copy(TINY / "model.safetensors", tmp_path / "made")
    assert json.loads(bertjax_command("info", tmp_path / "made", "--json")[1])["kind"] == "model"


def test_info_of_a_model_tells_how_its_files_are_read(bertjax_command, tmp_path):
    shutil.copytree(TINY, tmp_path / "model")
    remember(tmp_path / "model", DataConfig(text_column="body", labels=["a", "b"]))
    _, out, _ = bertjax_command("info", tmp_path / "model", "--json")
    assert json.loads(out)["files_are_read_with"] == {"text_column": "body", "labels": ["a", "b"]}
    assert "files_are_read_with" not in bertjax_command("info", TINY)[1]


def test_info_of_a_model_tells_its_attention_window(bertjax_command, tmp_path):
    model = shutil.copytree(TINY, tmp_path / "model")
    config = dataclasses.replace(load_config(model), attention_window=3)
    (model / "config.json").write_text(json.dumps(config.to_dict()))
    code, out, _ = bertjax_command("info", model, "--json")
    assert (code, json.loads(out)["attention_window"]) == (0, 3)


def test_info_of_a_run(bertjax_command, tmp_path):
    def line(step, split, loss):
        return {"step": step, "split": split, "loss": loss, "timing": {"seconds": 1.5}}

    run = tmp_path / "run"
    lines = [
        line(1, "validation", 4.5),
        line(2, "validation", 2.5),
        line(2, "train", 1.0),
        line(3, "validation", None),
        line(3, "validation", 3.5),
    ]
    write_run(run, lines, checkpoints=["3", "2", "4.orbax-checkpoint-tmp"])
    code, out, _ = bertjax_command("info", run, "--json")
    about = json.loads(out)
    assert code == 0
    assert about["kind"] == "run"
    assert about["seed"] == 3
    assert about["last_step"] == 3
    assert about["checkpoints"] == [2, 3]
    assert about["last_validation"] == {"step": 3, "loss": 3.5}
    assert about["best_validation"] == {"step": 2, "loss": 2.5}
    assert about["finished"] is False
    assert about["test"] is about["model"] is None

    shutil.copytree(TINY, run / "model")
    (run / "metrics.jsonl").write_text(json.dumps(line(3, "test", 2.75)) + "\n")
    about = json.loads(bertjax_command("info", run, "--json")[1])
    assert about["finished"] is True
    assert about["test"] == {"step": 3, "loss": 2.75}
    assert about["model"]["hidden_size"] == 24
    _, out, _ = bertjax_command("info", run)
    assert "finished         yes" in out


def test_info_of_a_fine_tuning_run_goes_by_its_score_and_results(bertjax_command, tmp_path):
    def line(step, accuracy, loss):
        timing = {"seconds": 1.5}
        split = "validation"
        return {"step": step, "split": split, "loss": loss, "accuracy": accuracy, "timing": timing}

    run = tmp_path / "run"
    write_run(run, [line(1, 0.5, 1.0), line(2, 0.75, 1.5), line(3, None, 0.5)], checkpoints=["3"])
    origin = {"program": "train.finetune", "score": "accuracy"}
    (run / "run.json").write_text(json.dumps(origin))
    about = json.loads(bertjax_command("info", run, "--json")[1])
    assert about["best_validation"]["step"] == 2
    assert about["finished"] is False
    (run / "eval_results.json").write_text(json.dumps({"score": "accuracy"}))
    assert json.loads(bertjax_command("info", run, "--json")[1])["finished"] is True
    (run / "run.json").write_text(json.dumps(origin | {"score": "loss"}))
    about = json.loads(bertjax_command("info", run, "--json")[1])
    assert about["best_validation"]["step"] == 3
    (run / "eval_results.json").write_text("{")
    assert "eval_results.json: damaged, not JSON" in bertjax_command("info", run)[2]


def test_tokenizer_with_fewer_tokens_than_the_model_is_told_of(bertjax_command, tmp_path):
    from bertjax.text.tokenizer import Tokenizer
    from bertjax.text.tokenizer_parts import build_wordpiece

    shutil.copytree(TINY, tmp_path / "model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is"]
    Tokenizer(build_wordpiece(words, True, None)).save(tmp_path / "model")
    note = "its tokenizer has 7 tokens, the model embeddings for 99; if the difference is not just"
    assert note in bertjax_command("info", tmp_path / "model")[1]
    code, _, err = bertjax_command("fill-mask", "--model", tmp_path / "model", "this is [MASK]")
    assert (code, err.count("\n")) == (0, 1)
    assert note in err
    _, _, err = bertjax_command(
        "embed", "--model", tmp_path / "model", "--output", tmp_path / "x.npy", stdin=b"this is"
    )
    assert note in err


def test_info_counts_the_steps_of_checkpoints_beyond_the_last_line(bertjax_command, tmp_path):
    lines = [{"step": 3, "split": "test", "loss": 3.5, "timing": {}}]
    write_run(tmp_path / "run", lines, checkpoints=["3", "7"])
    about = json.loads(bertjax_command("info", tmp_path / "run", "--json")[1])
    assert (about["last_step"], about["finished"]) == (7, False)


@pytest.mark.parametrize("name", ["checkpoints/", ".lock"])
def test_info_of_a_run_that_was_stopped_before_it_trained(bertjax_command, tmp_path, name):
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    code, out, _ = bertjax_command("info", tmp_path, "--json")
    about = json.loads(out)
    assert (code, about["kind"], about["last_step"], about["finished"]) == (0, "run", 0, False)


def test_info_of_a_tokenizer(bertjax_command, tmp_path):
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    code, out, _ = bertjax_command("info", tmp_path, "--json")
    assert code == 0
    about = json.loads(out)
    assert (about["kind"], about["model"], about["vocab_size"]) == ("tokenizer", "WordPiece", 99)


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ("model/config.json", r"this is a run, and its model is in .*made/model$"),
        ("checkpoints/3", "this is a run, and its model is written at its first evaluation$"),
        ("data_card.json", "this is a prepared directory, from which `bertjax pretrain`"),
        ("tokenizer.json", "this is a tokenizer, not a model$"),
        ("model.safetensors", "this has weights: copy the config.json of their model there$"),
        ("onnx/model.onnx", "this has weights: copy the config.json of their model there$"),
    ],
)
def test_directory_that_is_no_model_is_told_for_what_it_is(bertjax_command, tmp_path, holds, said):
    (tmp_path / "made" / holds).parent.mkdir(parents=True)
    (tmp_path / "made" / holds).touch()
    code, _, err = bertjax_command("fill-mask", "--model", tmp_path / "made", "a [MASK]")
    assert code == 2
    assert re.search(said, err.strip())


def test_info_of_a_run_that_has_only_begun(bertjax_command, tmp_path):
    write_run(tmp_path / "run", [])
    (tmp_path / "run" / "metrics.jsonl").unlink()
    code, out, _ = bertjax_command("info", tmp_path / "run", "--json")
    about = json.loads(out)
    assert code == 0
    assert about["last_step"] == 0
    assert about["last_validation"] is about["best_validation"] is None


def test_info_of_a_prepared_directory(bertjax_command, tmp_path):
    rows = {
        "token_ids": np.array([[2, 40, 41, 3, 0, 0, 0], [2, 42, 3, 0, 0, 0, 0]]),
        "token_type_ids": np.zeros((2, 7)),
        "sequence_ids": np.array([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]),
        "position_ids": np.tile(np.arange(7), (2, 1)),
        "example_starts": np.zeros((2, 1)),
        "next_sentence_labels": np.full((2, 1), -1),
    }
    prepared = tmp_path / "rows"
    write_rows(prepared, {"train": rows}, 99, TINY)
    code, out, _ = bertjax_command("info", prepared, "--json")
    about = json.loads(out)
    assert code == 0
    assert about["kind"] == "prepared"
    assert about["max_length"] == 7
    assert about["training_tokens"] == 3
    assert [about["splits"][split]["rows"] for split in ("train", "validation", "test")] == [
        2,
        0,
        0,
    ]
    tokenizer = about["tokenizer"]
    assert (tokenizer["kind"], tokenizer["vocab_size"]) == ("WordPiece", 99)
    assert bertjax_command("info", prepared)[0] == 0

    (prepared / "data_card.json").write_text("{")
    code, _, err = bertjax_command("info", prepared)
    assert code == 2
    assert "data_card.json: damaged" in err


def test_info_says_what_it_looked_for(bertjax_command, tmp_path):
    (tmp_path / "letters").touch()
    code, out, err = bertjax_command("info", tmp_path)
    assert (code, out) == (2, "")
    assert "data_card.json" in err
    assert "run.json" in err
    assert "config.json" in err
    assert err.endswith("it holds letters\n")
    assert "no such directory" in bertjax_command("info", tmp_path / "nowhere")[2]
    assert "is a file" in bertjax_command("info", tmp_path / "letters")[2]
    (tmp_path / "run.json").write_text("{")
    assert "run.json: damaged" in bertjax_command("info", tmp_path)[2]
