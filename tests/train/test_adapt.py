"""A pretrained model adapted to texts: what is made, resumed, gained, and refused."""

import json
import os
import shutil
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import bertjax
from bertjax.architectures import MASKED_LM, find_architecture
from bertjax.commands.adapt import read_config
from bertjax.directories import describe_directory
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.program.errors import UserError
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.adapt import adapt, compare_domains, describe_domains
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain_config import ModelConfig, shape_new_model
from tests.text.tiny_tokenizers import FAMILIES, make, make_of
from tests.train.finetune_runs import TINY, one_device
from tests.train.pretrain_runs import (
    assert_same_run,
    find_checkpoints,
    finish,
    start_program,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("known_rate")

NEW = [f"they said it to his harpooner {word}: this harpooner was a whaler." for word in
       ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
       for _ in range(3)]  # fmt: skip
NEW = [f"{text} {number * 'as this '}" * 3 for number, text in enumerate(NEW)]
OLD = [f"he is at {number * 'the '} and it was for his {word} as they be on the." * 2
       for number, word in enumerate(("a", "in", "of", "to", "it") * 6)]  # fmt: skip
FIELDS = {
    "preparation": {
        "max_length": 16,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "near_threshold": 0,
    },
    "steps": 4,
    "batch_size": 8,
    "log_every": 1,
    "checkpoint.every": 2,
    "evaluation": {"every": 2, "batch_size": 8},
    "replay_share": 0.25,
    "new_tokens": 2,
}


@pytest.fixture
def run_adapt(pretrained, tmp_path):
    def run(name="run", texts=NEW, replay=OLD, **more):
        fields = {**FIELDS, "mesh": one_device(), **more}
        if replay is None:
            del fields["replay_share"]
        model = fields.pop("model", pretrained)
        return adapt(model, texts, run=tmp_path / name, replay=replay, **fields)

    return run


@pytest.mark.whole
def test_interrupted_adaptation_goes_on_to_the_same_bits(run_adapt, pretrained, tmp_path):
    def interrupt(line):
        if line.startswith("step 2: replay"):
            raise KeyboardInterrupt

    told = []
    whole = run_adapt("whole", progress=told.append)
    table = "\n".join(told)
    assert "2 new tokens: harpooner, whaler" in table
    assert run_adapt("cut", progress=interrupt).stopped == "SIGINT"
    assert run_adapt("cut").scores["domains"] == whole.scores["domains"]
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 4)

    # The model begins with the means of the pieces, and nothing else of it is new.
    start, before = (
        load_model_directory(path) for path in (whole.run / "adaptation" / "start", pretrained)
    )
    vocab_size = before.config.vocab_size
    assert start.config.vocab_size == vocab_size + 2
    tokenizer = load_tokenizer(TINY)
    pieces = tokenizer.encode_batch(["harpooner"])[0]
    table, old = (one.params["bert"]["embeddings"]["word_embeddings"] for one in (start, before))
    np.testing.assert_allclose(table[vocab_size], old[pieces].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(table[:vocab_size], old)
    model = whole.model
    assert model.architecture == "BertForMaskedLM"  # as it came
    assert model.config.vocab_size == vocab_size + 2
    assert model.tokenizer.encode_batch(["harpooner whaler"])[0].tolist() == [99, 100]

    scores = whole.scores
    assert set(scores["domains"]) == {"new", "replay"}
    assert scores["domains"]["new"]["gain"] == pytest.approx(
        scores["domains"]["new"]["loss_before"] - scores["test"]["mlm_loss"]
    )
    before, after = (scores["vocabulary"][when]["new text"] for when in ("before", "after"))
    assert after["tokens_per_word"] < before["tokens_per_word"]
    said = describe_directory(whole.run)
    assert (said["program"], said["new_tokens"], said["finished"]) == ("bertjax adapt", 2, True)

    for more, message in (
        ({"new_tokens": 3}, r"was begun with other new_tokens; put them back"),
        ({"texts": NEW[1:]}, r"was begun with other texts, or options of their preparation"),
        ({"model": str(TINY)}, r"was begun with other model and other texts, or"),
        ({"replay_share": 0.5}, r"other settings .*replay_share: 1/4 then, 1/2 now"),
    ):
        with pytest.raises(UserError, match=message):
            run_adapt("cut", **more)


def test_adaptation_without_replay_or_new_tokens_keeps_the_tokenizer(run_adapt, pretrained):
    result = run_adapt(replay=None, new_tokens=0, evaluation={"every": 1, "batch_size": 8,
                       "patience": 1, "min_gain": 9.0})  # fmt: skip
    assert result.scores["step"] == 1
    assert result.scores["ended_early"].startswith("no gain of 9 nats in 1 evaluation")
    assert set(result.scores["domains"]) == {"new"}
    assert result.model.tokenizer.fingerprint == load_tokenizer(pretrained).fingerprint
    assert not (result.run / "adaptation" / "start").exists()


@pytest.fixture
def launch_adapt(pretrained, cache, tmp_path):
    """Starts `bertjax adapt` on files, for a number of steps."""
    for name, texts in (("new", NEW), ("old", OLD)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts))
    preparation = json.dumps(FIELDS["preparation"])

    def start(run, steps, devices=1):
        flags = f"--xla_force_host_platform_device_count={devices}"
        return start_program(
            [
                *(sys.executable, "-m", "bertjax", "adapt", "--model", pretrained),
                *("--input", tmp_path / "new.txt", "--replay", tmp_path / "old.txt"),
                *("--output", run, "--preparation", preparation, "--replay-share", 0.25),
                *("--new-tokens", 2, "--budget.steps", steps, "--batch-size", 8),
                *("--log-every", 1, "--checkpoint.every", 2, "--evaluation.batch_size", 8),
                *("--evaluation.patience", 0),
            ],
            cache,
            XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        )

    return start


@pytest.mark.slow
def test_killed_adaptation_goes_on_to_the_same_bits(launch_adapt, tmp_path):
    """Killed while it prepares the texts, and while it trains."""
    steps, killed = 60, tmp_path / "killed"
    for has_come_far in (
        (killed / "adaptation").is_dir,
        lambda: find_checkpoints(killed),
        lambda: max(find_checkpoints(killed)) > steps / 2,
    ):
        process = launch_adapt(killed, steps)
        wait_for(process, has_come_far)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        print(f"newest checkpoint: {max([0, *find_checkpoints(killed)])}")
    for run in (killed, tmp_path / "whole"):
        code, _, errors = finish(launch_adapt(run, steps))
        assert code == 0, errors
    assert_same_run(tmp_path / "whole", killed, steps)


@pytest.mark.slow
def test_adaptation_is_the_same_on_any_devices(launch_adapt, tmp_path):
    curves = {}
    for devices in (1, 2, 4, 8):
        run = tmp_path / str(devices)
        code, _, errors = finish(launch_adapt(run, 12, devices))
        assert code == 0, errors
        curves[devices] = np.array([line["loss"] for line in read_metrics(run / "metrics.jsonl")])
        # Each step, and before, at every step and after: new and replayed text.
        assert len(curves[devices]) == 12 + 2 * (1 + 1 + 12 + 1)
    worst = {number: np.abs(curve / curves[1] - 1).max() for number, curve in curves.items()}
    print(f"largest relative difference by devices: {worst}")
    assert max(worst.values()) < 1e-5


@pytest.mark.whole
def test_dry_run_writes_nothing(run_adapt, tmp_path):
    assert run_adapt(dry_run=True).scores == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
def test_second_run_in_one_directory_is_named_by_its_option(run_adapt, tmp_path):
    run_adapt(replay=None, new_tokens=0, steps=1)
    with pytest.raises(UserError, match=r"^output \S+run: was begun with other settings.*new out"):
        run_adapt(replay=None, new_tokens=0, steps=1, seed=7)
    (tmp_path / "run" / "adaptation" / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"record.json: damaged; remove it"):
        run_adapt(replay=None, new_tokens=0, steps=1)


@pytest.mark.whole
def test_preparation_that_was_killed_is_made_again(run_adapt, tmp_path):
    half = tmp_path / "run" / "adaptation" / "prepared.partial"
    half.mkdir(parents=True)
    (half / "left").write_text("over")
    result = run_adapt(replay=None, new_tokens=0, steps=1)
    assert result.scores["step"] == 1
    assert not half.exists()


def test_run_of_another_program_is_left_alone(run_adapt, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "adaptation").mkdir()
    with pytest.raises(UserError, match="holds a run that is no adaptation; name another"):
        run_adapt()
    assert list((tmp_path / "run" / "adaptation").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"replay": NEW}, r"replay \S+ is among the new texts, too"),
        ({"replay": None, "replay_share": 0.2}, r"replay_share=0.2 needs text to replay: name it"),
        ({"replay_share": 1.5}, r"replay.share=1.5 must be 0, or"),
        ({"new_tokens": -1}, r"new_tokens=-1 must be at least 0"),
        ({"texts": ["too short"]}, r"nothing is left of .* go into preparation here"),
        ({"texts": ["they said it to his harpooner, and more of it."]}, r"the text has 1 document"),
        ({"preparation": {"input": "x"}}, r"preparation.input=x: texts are named by input and re"),
        ({"preparation": {"max_len": 3}}, r"unknown key max_len; did you mean 'rows.max_length'"),
        ({"steps": 3, "minutes": 3}, r"give exactly one of budget.steps"),
        ({"model": "nowhere"}, r"nowhere"),
        ({"preparation": {"max_length": 64}}, r"max_length=64 is longer than \S+ takes \(max_pos"),
        ({"learning_rat": 3}, r"did you mean 'optimizer.learning_rate'"),
    ],
)
def test_mistake_is_told(run_adapt, more, message):
    if more.get("replay", OLD) is None:
        with pytest.raises(UserError, match=message):
            adapt("nowhere", NEW, run="run", **{**FIELDS, **more, "replay": None})
        return
    with pytest.raises(UserError, match=message):
        run_adapt(**more)


def test_model_without_tokenizer_is_told(run_adapt, pretrained, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(pretrained, bare)
    for name in ("tokenizer.json", "vocab.txt"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"there is no tokenizer beside the model \(tokenizer.json"):
        run_adapt(model=str(bare))


@pytest.mark.whole
def test_model_with_another_head_is_told_of(run_adapt, tmp_path):
    loaded = load_model_directory(TINY)
    body = {**loaded.params["bert"]}
    save_model_directory(tmp_path / "body", loaded.config, {"bert": body}, TINY, "BertModel")
    notes = run_adapt(model=str(tmp_path / "body"), replay=None, steps=1).notes
    assert any(
        "a new one is trained with it: its first loss is that of guessing" in n for n in notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
def test_model_of_every_family_gets_new_tokens(run_adapt, tmp_path, family):
    tokenizer = make("wordpiece") if family == "distilbert" else make_of(family)
    tokenizer.save(tmp_path / "tokenizer")
    shape = ModelConfig(
        family=family,
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=48,
    )
    config = shape_new_model(shape, tokenizer.vocab_size, tokenizer.ids_of_fields, 16)
    module = find_architecture(MASKED_LM, config).module(config)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    save_model_directory(tmp_path / "model", config, params, tmp_path / "tokenizer", MASKED_LM)
    result = run_adapt(model=str(tmp_path / "model"), replay=None, new_tokens=3, steps=1)
    adapted = result.model
    size = tokenizer.vocab_size
    assert adapted.config.vocab_size == adapted.tokenizer.vocab_size == size + 3
    text = "this harpooner was a whaler"
    assert max(adapted.tokenizer.encode_batch([text])[0]) >= size
    raw = tokenizers.Tokenizer.from_file(str(result.run / "model" / "tokenizer.json"))
    ids = adapted.tokenizer.encode_batch([text])[0].tolist()
    assert raw.encode(text, add_special_tokens=False).ids == ids
    assert adapted.architecture == find_architecture(MASKED_LM, config).name


def test_options_have_defaults_of_their_own(capsys):
    words = ["--model", "m", "--input", "a", "b", "--output", "run", "--optimizer.beta1", "0.8"]
    config = read_config(words)
    assert config.input == ["a", "b"]
    assert (config.evaluation.at_start, config.evaluation.patience) == (True, 3)
    assert config.optimizer.learning_rate == read_config(words[:-2]).optimizer.learning_rate
    assert config.share == 0
    assert read_config([*words, "--replay", "c"]).share == 0.2
    with pytest.raises(SystemExit):
        read_config(["--help"])
    said = capsys.readouterr().out
    assert "--evaluation.patience" in said
    assert "--data" not in said
    with pytest.raises(UserError, match=r"--model and --input and --output are missing"):
        read_config([])


def test_table_says_what_was_gained_and_forgotten():
    def line(step, split, loss, right):
        return {"step": step, "split": split, "mlm_loss": loss, "mlm_accuracy": right}

    history = [line(0, "test", 3.5, 0.3), line(0, "replay_test", 3.0, 0.4)]
    assert compare_domains(history) == {}
    history += [line(9, "test", 3.0, 0.35), line(9, "replay_test", 3.25, 0.38)]
    domains = compare_domains(history)
    assert (domains["new"]["gain"], domains["replay"]["gain"]) == (0.5, -0.25)
    said = describe_domains(domains).splitlines()
    assert said[1].split() == ["new", "3.500", "3.000", "+0.500", "30.0%", "35.0%"]
    assert said[2].endswith("38.0%  (forgotten)")


def test_face_has_it():
    assert bertjax.adapt is adapt
    json.dumps(sorted(bertjax.__all__))
