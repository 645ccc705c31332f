"""The `bertjax` command as a user meets it."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bertjax
from bertjax.commands import info, screen
from bertjax.config import BertConfig
from bertjax.errors import UserError
from bertjax.program import outputs
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import remember
from bertjax.text.rows import write_rows

TINY = Path(__file__).parent / "parity" / "golden" / "tiny_bert"


def write_run(path, lines, checkpoints=()):
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"program": "train.pretrain", "seed": 3}))
    (path / "config.yaml").write_text("seed: 3\n")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"step": 4')  # cut short by a kill
    for name in checkpoints:
        (path / "checkpoints" / name).mkdir(parents=True)


def test_help_lists_the_commands_and_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bertjax", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("fill-mask", "info", "--version", "train.pretrain"):
        assert word in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "bertjax.cli" in imported
    heavy = {"jax", "jaxlib", "flax", "numpy", "rich", "tokenizers", "datasets", "jsonargparse"}
    assert imported & heavy == set()
    assert len(imported) < 300  # 131 today; numpy alone is 100 more


def test_version_is_the_packages(bertjax_command):
    assert bertjax_command("--version")[:2] == (0, f"bertjax {bertjax.__version__}\n")


def test_help_of_a_command_shows_its_defaults(bertjax_command):
    _, out, _ = bertjax_command("fill-mask", "--help")
    assert "(default: 5)" in out
    assert "(default: the files of --input, or standard" in " ".join(out.split())
    assert "(required)" in out


@pytest.mark.parametrize("arguments", [(), ("fill",), ("info",), ("fill-mask", "a [MASK]")])
def test_incomplete_command_line_is_the_users_mistake(bertjax_command, arguments):
    code, out, err = bertjax_command(*arguments)
    assert code == 2
    assert out == ""
    assert "usage: bertjax" in err


def test_unknown_option_is_told_by_its_command(bertjax_command):
    code, out, err = bertjax_command("fill-mask", "--model", TINY, "--topk", 2, "a [MASK]")
    assert (code, out) == (2, "")
    assert err.startswith("usage: bertjax fill-mask ")
    assert err.endswith("error: unknown argument --topk; did you mean '--top-k'?\n")


def test_fill_mask_prints_json_as_documented(bertjax_command):
    texts = ["this is [MASK].", "[MASK] they are [MASK]"]
    code, out, err = bertjax_command("fill-mask", "--model", TINY, "--json", "--top-k", 2, *texts)
    assert (code, err) == (0, "")
    results = json.loads(out)
    assert [result["text"] for result in results] == texts
    assert [result.keys() for result in results] == [{"text", "masks"}] * 2
    assert [[mask["position"] for mask in result["masks"]] for result in results] == [[3], [1, 6]]
    for result in results:
        for mask in result["masks"]:
            assert mask.keys() == {"position", "candidates"}
            first, second = mask["candidates"]
            assert first.keys() == {"token", "token_id", "probability"}
            assert 1 > first["probability"] > second["probability"] > 0


def test_fill_mask_prints_texts_and_candidates(bertjax_command):
    code, out, _ = bertjax_command(
        "fill-mask", "--model", TINY, "--top-k", 2, "this is [MASK].", "[MASK] they are [MASK]"
    )
    _, as_json, _ = bertjax_command(
        "fill-mask", "--json", "--model", TINY, "--top-k", 2, "this is [MASK]."
    )
    [mask] = json.loads(as_json)[0]["masks"]
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "this is [MASK]."
    for line, candidate in zip(lines[2:4], mask["candidates"], strict=True):
        assert line == f"  {candidate['probability']:7.2%}  {candidate['token']}"
    assert lines[4:6] == ["", "[MASK] they are [MASK]"]
    assert [line for line in lines if line.startswith("  mask")] == ["  mask 1", "  mask 2"]


@pytest.mark.parametrize("dash", [(), ("-",)])
def test_fill_mask_reads_standard_input(bertjax_command, dash):
    stdin = b"this is [MASK].\n\n  [MASK] they are [MASK]  \n"
    code, out, _ = bertjax_command(
        "fill-mask", "--model", TINY, "--json", "--top-k", 2, *dash, stdin=stdin
    )
    assert code == 0
    texts = [result["text"] for result in json.loads(out)]
    assert texts == ["this is [MASK].", "[MASK] they are [MASK]"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["here is none"], b"", "text 1, 'here is none': there is no [MASK] in it"),
        (["x " * 20 + "[MASK]"], b"", "23 tokens, the model has positions for 17"),
        (["--top-k", "100", "a [MASK]"], b"", "top_k=100 must lie between 1 and"),
        (
            [],
            b"a [MASK]\ncaf\xe9 [MASK]\n",
            "standard input:2: not UTF-8 (byte 0xe9 at column 4); pass --encoding cp1252",
        ),
        ([], b"\n \n", "standard input: no text"),
        (["-", "a [MASK]"], b"a [MASK]", "- reads standard input and stands alone"),
        (["a [MASK]", "-"], b"a [MASK]", "- reads standard input and stands alone"),
    ],
)
def test_fill_mask_tells_of_the_users_mistake(bertjax_command, arguments, stdin, message):
    code, out, err = bertjax_command("fill-mask", "--model", TINY, *arguments, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_fill_mask_refuses_a_model_without_the_head(bertjax_command, tmp_path):
    from bertjax.interop.huggingface import load_model_directory, save_model_directory

    config, params, *_ = load_model_directory(TINY, "BertModel")
    save_model_directory(tmp_path / "body", config, params, TINY, "BertModel")
    code, out, err = bertjax_command("fill-mask", "--model", tmp_path / "body", "a [MASK]")
    assert (code, out) == (2, "")
    assert "is a BertModel and has no mlm_head (missing tensor cls.predictions" in err


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


def test_info_of_a_model_tells_how_its_files_are_read(bertjax_command, tmp_path):
    shutil.copytree(TINY, tmp_path / "model")
    remember(tmp_path / "model", DataConfig(text_column="body", labels=["a", "b"]))
    _, out, _ = bertjax_command("info", tmp_path / "model", "--json")
    assert json.loads(out)["files_are_read_with"] == {"text_column": "body", "labels": ["a", "b"]}
    assert "files_are_read_with" not in bertjax_command("info", TINY)[1]


def test_info_of_a_model_tells_its_attention_window(bertjax_command, tmp_path):
    model = shutil.copytree(TINY, tmp_path / "model")
    config = dataclasses.replace(BertConfig.load(model), attention_window=3)
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
    note = (
        "its tokenizer has 7 tokens, the model embeddings for 99; if these are not merely padding"
    )
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
        ("data_card.json", "this is a prepared directory, of which `python -m train.pretrain`"),
        ("tokenizer.json", "this is a tokenizer and no model$"),
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


def test_user_error_leaves_no_traceback(bertjax_command, monkeypatch):
    def fail(options):
        raise UserError("the field x=3 must be 4")

    monkeypatch.setattr(info, "run", fail)
    assert bertjax_command("info", TINY) == (2, "", "error: the field x=3 must be 4\n")


@pytest.mark.parametrize("command", ["attention", "contexts", "embed", "analyze"])
def test_way_out_of_another_encoding_is_an_option_of_the_command(
    bertjax_command, tmp_path, command
):
    text = tmp_path / "text.txt"
    text.write_bytes("caf\xe9 au lait\n".encode("latin-1"))
    words = {
        "attention": ["--input", text, "--output", tmp_path / "x.npz"],
        "contexts": ["--word", "a", "a b", "--input", text],
        "embed": ["--input", text, "--output", tmp_path / "x.npy"],
        "analyze": ["--text", text, "--output", tmp_path / "x"],
    }[command]
    code, _, err = bertjax_command(command, "--model", TINY, *words)
    assert (code, "pass --encoding cp1252 or --errors replace" in err) == (2, True)
    text.write_bytes("caf\xe9\tau\tlait\n".encode("latin-1"))
    for way_out in (("--encoding", "latin-1"), ("--errors", "replace")):
        code, _, err = bertjax_command(command, "--model", TINY, *words, *way_out)
        # Read so, it goes on to the next mistake, which is none to embed.
        assert (code, "2 tabs" in err) == ((0, False) if command == "embed" else (2, True))


@pytest.mark.parametrize(
    ("command", "suffix"), [("predict", ".jsonl"), ("embed", ".npy"), ("evaluate", ".json")]
)
def test_output_that_cannot_be_written_is_refused_before_the_work(
    bertjax_command, tmp_path, monkeypatch, command, suffix
):
    def refuse(prefix, dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.chdir(tmp_path)
    (tmp_path / f"folder{suffix}").mkdir()
    words = {"evaluate": ["--data", "no"], "predict": [], "embed": []}[command]
    for output, message in (
        (f"no/x{suffix}", f"--output no/x{suffix}: there is no folder no; make it first"),
        (f"folder{suffix}", f"--output folder{suffix}: is a folder; name a file"),
    ):
        code, _, err = bertjax_command(command, "--model", "no", *words, "--output", output)
        assert (code, message in err) == (2, True)
    with monkeypatch.context() as patch:  # root may write everywhere
        patch.setattr(outputs.tempfile, "mkdtemp", refuse)
        code, _, err = bertjax_command(command, "--model", "no", *words, "--output", f"x{suffix}")
    told = f"--output x{suffix}: nothing can be written there (Permission denied)"
    assert (code, told in err) == (2, True)
    if command == "predict":
        (tmp_path / "file").touch()
        for output in ("file", "file/x"):
            _, _, err = bertjax_command(command, "--model", "no", "--output", output)
            assert f"--output {output}: " in err
            assert "file is a file; name a folder" in err


def test_brackets_are_printed_as_they_are(capsys):
    screen.console().print("pip install 'bertjax[plan]'")
    assert capsys.readouterr().out == "pip install 'bertjax[plan]'\n"
