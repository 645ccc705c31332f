"""`train.pretrain` as a user runs it: real processes, killed, stopped, damaged, resumed."""

import json
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest

from bertjax.analysis.report.development import Development
from bertjax.families.registry import FAMILIES
from bertjax.loaded import load
from bertjax.program.config_parser import parse
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.text.special_tokens import BERT_TOKENS, STYLES
from bertjax.training.ledger import read_ledger
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain import run_pretraining
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.progress import RunProgress
from tests.prepared_rows import write_rows
from tests.train.pretrain_runs import (
    CHANGING,
    MUON,
    ROWS,
    STEPS,
    T,
    V,
    assert_same_run,
    find_checkpoints,
    finish,
    kill_at_random,
    make_columns,
    read_config,
    wait_for,
)


def pretrain(config, **arguments):
    """Runs in this process, which tells of it on stderr."""
    return run_pretraining(config, reporter=RunProgress(), **arguments)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Where the run that nothing happened to lies; filled by the first test that asks."""
    return tmp_path_factory.mktemp("uninterrupted") / "run"


@pytest.fixture
def whole_run(uninterrupted, launch):
    if not uninterrupted.exists():
        code, _, errors = finish(launch(uninterrupted))
        assert code == 0, errors
    return uninterrupted


@pytest.mark.whole
def test_run_stopped_and_killed_equals_uninterrupted(launch, whole_run, tmp_path):
    """SIGTERM saves and exits with a code of its own; what it left is killed, and resumed."""
    run = tmp_path / "run"
    process = launch(run)
    wait_for(process, (run / "run.json").exists)
    process.send_signal(signal.SIGTERM)
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    stopped = re.search(r"SIGTERM: saved step (\d+) in .*; the same command continues", errors)
    assert max(find_checkpoints(run)) == int(stopped[1])
    _, errors = kill_at_random(launch, run, random.Random(3), kills=1)
    assert f"continuing {run} from step" in errors
    assert_same_run(whole_run, run)


@pytest.mark.slow
def test_programs_from_the_disk_give_the_bits_of_those_compiled(
    launch, whole_run, cache, tmp_path, monkeypatch
):
    assert list(cache.glob("jit_step-*-cache"))  # of the whole run
    assert finish(launch(tmp_path / "kept"))[0] == 0
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    assert finish(launch(tmp_path / "compiled"))[0] == 0
    assert_same_run(tmp_path / "kept", tmp_path / "compiled")


@pytest.mark.slow
def test_ten_kills_resumed_equal_uninterrupted(launch, tmp_path):
    steps = 200
    options = ("--budget.steps", steps)
    killed = tmp_path / "killed"
    began = time.time()
    reached, _ = kill_at_random(launch, killed, random.Random(5), 10, *options, later=0.7)
    wall = time.time() - began
    print(f"newest checkpoint at each kill: {reached}")
    ledger = read_ledger(killed)
    print(f"{wall:.1f} s on the wall clock, in the ledger: {ledger}")
    assert (ledger["sittings"], ledger["killed"]) == (11, 10)
    assert sum(ledger["seconds"].values()) == pytest.approx(ledger["wall_seconds"], abs=1)
    assert 0.97 * wall < ledger["wall_seconds"] < wall
    assert ledger["seconds"]["lost"] > 0
    assert sorted(reached) == reached
    assert len(set(reached)) > 3
    assert finish(launch(tmp_path / "whole", *options))[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed", steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "accumulations"),
    [((), (1, 4)), (CHANGING, (1,)), (MUON, (1,))],
    ids=["plain", "changing", "muon"],
)
def test_loss_curve_is_the_same_on_any_devices_and_accumulation(
    launch, prepared, tmp_path, more, accumulations
):
    rows = tmp_path / "rows"
    splits = {name: make_columns(64, seed) for seed, name in enumerate(("train", "validation"))}
    splits["test"] = splits["validation"]
    write_rows(rows, splits, V, prepared / "tokenizer")
    options = ("--batch-size", 32, "--budget.steps", 20, "--log-every", 1)
    options += ("--evaluation.every", 20, "--checkpoint.every", 20)
    curves = {}
    for devices in (1, 2, 4, 8):
        for accumulation in accumulations:
            run = tmp_path / f"{devices}x{accumulation}"
            given = (*options, "--accumulation", accumulation, *more)
            code, _, errors = finish(launch(run, *given, data=rows, devices=devices))
            assert code == 0, errors
            lines = read_metrics(run / "metrics.jsonl")
            losses = [line["loss"] for line in lines if line["split"] in ("train", "test")]
            assert len(losses) == 21
            curves[devices, accumulation] = np.array(losses)
    reference = curves[1, 1]
    assert np.abs(reference[-1] / reference[0] - 1) > 0.05  # it learns
    worst = {key: np.abs(curve / reference - 1).max() for key, curve in curves.items()}
    print(f"largest relative difference by (devices, accumulation): {worst}")
    assert max(worst.values()) < 1e-5


@pytest.mark.slow
def test_run_ended_where_it_was_stopped_is_validated_and_tested(launch, tmp_path):
    run = tmp_path / "run"
    process = launch(run, "--evaluation.every", 9999, "--budget.steps", 9999)
    wait_for(process, lambda: run.exists() and find_checkpoints(run))
    process.send_signal(signal.SIGTERM)
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    (step,) = {*find_checkpoints(run)} & {int(re.search(r"saved step (\d+)", errors)[1])}
    code, _, errors = finish(launch(run, "--evaluation.every", 9999, "--budget.steps", step))
    assert code == 0, errors
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in lines if line["split"] == "validation"] == [step]
    assert [line["step"] for line in lines if line["split"] == "test"] == [step]
    assert (run / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_finished_run_given_more_steps_is_tested_again(launch, whole_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    code, _, errors = finish(launch(run, "--budget.steps", STEPS + 2))
    assert code == 0, errors
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in lines if line["split"] == "test"] == [STEPS, STEPS + 2]


@pytest.mark.slow
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(launch, whole_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    for file in (run / "checkpoints" / str(STEPS) / "state").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, _, errors = finish(launch(run))
    assert code == 0, errors
    assert f"checkpoint {STEPS} is damaged" in errors
    assert (run / "damaged" / str(STEPS)).is_dir()
    assert_same_run(whole_run, run)


def test_finished_run_started_again_changes_nothing(prepared, whole_run, capsys):
    before = (whole_run / "metrics.jsonl").read_bytes()
    assert pretrain(read_config(prepared, whole_run)).stopped is None
    errors = capsys.readouterr().err
    assert "finished" in errors
    assert "compiled" not in errors
    assert (whole_run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("start", ["random", pytest.param("patterns", marks=pytest.mark.slow)])
def test_dry_run_writes_nothing(here, prepared, tmp_path, start, capsys):
    given = ("--dry-run", "true", "--model.start", start)
    assert pretrain(read_config(prepared, tmp_path / "run", *given), mesh=here).scores == {}
    errors = capsys.readouterr().err
    assert "dry run" in errors
    assert re.search(r"memory on each device: \S+ GB, \S+ GB of it for weights", errors)
    assert re.search(r"time: \S+ s a step at the least, .*; 0 s for 12 steps", errors)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_wall_clock_budget_anneals_to_its_end(launch, prepared, tmp_path):
    options = ("--budget.steps", "null", "--budget.minutes", 0.05, "--log-every", 1)
    options += ("--evaluation.every", 9999, "--checkpoint.every", 9999)
    code, output, errors = finish(launch(tmp_path / "run", *options, "--json", "true"))
    assert code == 0, errors
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert max(rates) > 0.005
    assert rates[-1] < 0.3 * max(rates)
    assert json.loads(output)["step"] == lines[-1]["step"]


def test_run_directory_says_where_it_comes_from(whole_run):
    about = json.loads((whole_run / "run.json").read_text())
    assert about["seed"] == 0
    assert about["packages"]["jax"]
    assert re.fullmatch(r"[0-9a-f]{64}", about["data_fingerprint"])
    assert "batch_size: 8" in (whole_run / "config.yaml").read_text()
    assert list((whole_run / "tensorboard").glob("events*"))
    assert (whole_run / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", 7), "was begun with other settings.*seed: 0 then, 7 now"),
        (
            ("--model.num_hidden_layers", 3),
            r"was begun.*\(model.num_hidden_layers: 2 then, 3",
        ),
        (
            ("--optimizer.beta2", 0.9),
            "was begun with other settings .*optimizer.beta2: 0.999 then, 0.9 now",
        ),
        (
            ("--dtype", "bfloat16"),
            "was begun with other settings.*dtype: float32 then, bfloat16 now",
        ),
        (("--model.start", "patterns"), "was begun with other settings.*start: random then"),
        (("--resume", "false"), "has checkpoints and --resume is false"),
        (("--seed", 7, "--dry-run"), "was begun with other settings.*seed: 0 then, 7 now"),
    ],
)
def test_resume_with_other_settings_is_refused(prepared, whole_run, options, message):
    with pytest.raises(UserError, match=message):
        pretrain(read_config(prepared, whole_run, *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", 64), "24 training rows, less than one batch of batch_size=64"),
        (("--batch-size", 6, "--accumulation", 4), "batch_size=6 must be a multiple of"),
        (
            ("--budget.minutes", 3),
            "exactly one of budget.steps, budget.epochs, budget.minutes; given: budget.steps=12,"
            r" budget.minutes=3.0 \(null unsets one",
        ),
        (("--model.num_attention_heads", 5), "hidden_size=32 must be a multiple of"),
        (("--model.max_position_embeddings", 9), "rows in .* are 16 tokens long"),
        (("--model.attention_window", 15), "=15 hides nothing in .* or give at most 14$"),
        (("--optimizer.learning_rat", 1), "did you mean 'optimizer.learning_rate'"),
        (("--model.init", "nowhere"), "nowhere: no such directory"),
        (("--model.init", "nowhere", "--model.start", "patterns"), "leave them out, or it"),
        (("--model.num_attention_heads", 2, "--model.start", "patterns"), "of at least 3, not 2"),
        (("--mesh.fsdp", 3), "does not make the number of devices"),
        (("--batch-size", 12), "must be a multiple of the 8 devices"),
        (("--data", "nowhere"), "nowhere: no such directory"),
        (("--seed", -1), r"seed=-1 must be in \[0, 4294967296\)"),
    ],
)
def test_mistake_names_field_and_way_out(prepared, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pretrain(read_config(prepared, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


# Those that are pretrained by the masked words alone.
WITHOUT_NEXT_SENTENCE = [
    name for name, family in FAMILIES.items() if "pretraining" not in family.config.PARTS
]


@pytest.mark.whole
@pytest.mark.parametrize(
    "family",
    [
        WITHOUT_NEXT_SENTENCE[0],
        *(pytest.param(name, marks=pytest.mark.slow) for name in WITHOUT_NEXT_SENTENCE[1:]),
    ],
)
def test_family_without_next_sentences_learns_words_alone(here, prepared, tmp_path, family, capfd):
    given = ("--model.family", family, "--budget.steps", 4)
    pretrain(read_config(prepared, tmp_path / "run", *given), mesh=here)
    has_other_tokens = STYLES[family].tokens != BERT_TOKENS
    told = "[CLS] A [SEP] B [SEP], with the special tokens of another family than model.family="
    said = capfd.readouterr().err
    assert (told + family in said) == has_other_tokens
    train, *_ = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert train["loss"] > 0
    assert "nsp_loss" not in train
    note = f"{with_article(family)} is pretrained by the masked words alone"
    assert note in " ".join(said.split())
    model = load(tmp_path / "run" / "model")
    assert (model.config.MODEL_TYPE, model.kind) == (family, "masked-lm")
    assert model.config.max_length == T


def test_patterns_are_refused_by_other_families(here, prepared, tmp_path):
    given = ("--model.family", "roberta", "--model.start", "patterns")
    with pytest.raises(UserError, match=r"model.start=patterns is BERT's.*family=roberta"):
        pretrain(read_config(prepared, tmp_path / "run", *given), mesh=here)


def test_rows_without_a_split_say_how_to_prepare_them(prepared, tmp_path):
    splits = {"train": make_columns(ROWS, 0), "validation": make_columns(5, 1)}
    write_rows(tmp_path / "rows", splits, V, prepared / "tokenizer")
    with pytest.raises(UserError, match=r"its test split has no rows.* with --test-fraction above"):
        pretrain(read_config(tmp_path / "rows", tmp_path / "run"))


def test_missing_directories_are_named_before_all_else():
    with pytest.raises(UserError, match=r"^--data and --run are missing"):
        parse(PretrainConfig, "", [])


@pytest.mark.whole
def test_steps_that_are_never_finite_stop_the_run(here, prepared, tmp_path):
    options = ("--optimizer.learning_rate", 1e38, "--most-skipped", 3)
    with pytest.raises(UserError, match=r"step \d+: loss or gradient was not finite in \d+ steps"):
        pretrain(read_config(prepared, tmp_path / "run", *options), mesh=here)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.whole
def test_mistake_ends_program_with_one_paragraph_and_code_2(launch, tmp_path):
    code, output, errors = finish(launch(tmp_path / "run", data=tmp_path))
    assert code == 2
    assert output == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@pytest.mark.whole
def test_heads_are_looked_at_from_the_first_step_on(here, prepared, tmp_path):
    run = tmp_path / "run"
    config = read_config(prepared, run, "--development.examples", 6)
    assert pretrain(config, mesh=here, make_development=Development).scores["step"] == 12
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "analysis"]
    assert [line["step"] for line in lines] == [0, 4, 8, 12]
    assert lines[0]["cka_to_first"] == pytest.approx(1)
    assert lines[-1]["entropy_0"] != lines[0]["entropy_0"]
    assert (run / "development.png").stat().st_size > 10_000
