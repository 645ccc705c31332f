"""No accepted field is without effect: each one of each program changes what comes of it.

Every field of every config has a case here: the words that make it differ, and before them those
that both lines have. A field without a case fails. What must differ is what the function makes of
the config that uses the field; a refusal is an effect, too. Where that would take a training, the
field must be read by the run, and not only where it is checked or written down.
"""

import dataclasses
import hashlib
import os
import random
import shutil
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.commands import adapt as adapt_program
from bertjax.commands import finetune as finetune_program
from bertjax.commands import prepare, tokenizer
from bertjax.commands import pretrain as pretrain_program
from bertjax.commands.prepare import PrepareConfig
from bertjax.commands.tokenizer import TokenizerConfig
from bertjax.objectives.masking import Vocabulary, mask_tokens
from bertjax.program.config_fields import flat_fields
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.sweeps.space import PROGRAMS, Program
from bertjax.sweeps.sweep import SweepConfig, sweep
from bertjax.tasks.reading import read_task_data
from bertjax.text.tokenizer import Tokenizer, build_wordpiece
from bertjax.training.adapt_config import AdaptConfig
from bertjax.training.budget import Clock
from bertjax.training.evaluation import DueEvaluations
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.optimizer import make_optimizer, make_schedule
from bertjax.training.phases import make_phases
from bertjax.training.pretrain_config import PretrainConfig, make_step, shape_new_model
from bertjax.training.sharding import make_mesh
from bertjax.training.starting_model import resolve_finetuned_model
from bertjax.training.transfer import learning_rate_scales
from bertjax.types import RowBatch
from tests.commands.option_files import write_files
from tests.prepared_rows import write_rows
from tests.train.fake_sweep import FAKE, comparable, read_results
from tests.train.field_cases import CASES, LINES, SWEEP, TREEBANK
from tests.train.pretrain_runs import SPECIAL, WORDS, make_columns

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("config_class", CASES)
def test_every_field_of_every_program_has_a_case(config_class):
    assert {name for name, _ in flat_fields(config_class)} == CASES[config_class].keys()


def lines_of(config_class, case):
    """The words without what the case has behind its stroke, and with it."""
    before, _, after = case.rpartition("/")
    base = f"{LINES[config_class]} {before}".split()
    return base, [*base, *after.split()]


def outcome(make, config_class, words):
    """What is made of the config, or the message of the refusal."""
    try:
        return make(parse(config_class, "", words))
    except UserError as error:
        return f"refused: {error}"


def differ(one, other):
    """Whether two trees of numbers and texts do."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return True
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, labelled files, tokenizers and rows that the lines name."""
    folder = tmp_path_factory.mktemp("fields")
    write_files(folder)
    (folder / "uneven.csv").write_text("text,label\na cat,good\na dog,good\na bird,bad\n")
    draw = random.Random(0)
    words = ["the", "dog", "sees", "a", "Bird", "on", "his", "old", "ship", "\u00e9t\u00e9"]
    words += ["\ufb01ne", "caf\u00c3\u00a9", "10\u00b3"]
    documents = [
        "\n".join(" ".join(draw.choices(words, k=9)) + "." for _ in range(4)) for _ in range(40)
    ]
    documents = [f"the same line in all\n{text}" for text in documents]
    near = documents[3].replace("dog", "cat", 1)
    (folder / "text.txt").write_text("\n\n".join([*documents, near, "the dog sees a bird."]))
    (folder / "other.txt").write_text("\n\n".join(documents[:20]))
    (folder / "latin.txt").write_bytes(
        "\n\n".join(documents).encode("utf-8")
        + b"\n\n"
        + "\n\n".join(f"le caf\u00e9 du vieux {word} est ferm\u00e9" for word in words[:4]).encode(
            "latin-1"
        )
    )
    rows = [f'"{text}","{text[::-1]}"' for text in documents]
    (folder / "texts.csv").write_text("\n".join(["text,other", *rows]))
    for name, number in (("tokenizer", 0), ("other_tokenizer", 5)):
        own = [
            *SPECIAL,
            *"abcdefghijklmnopqrstuvwxyz.",
            *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
        ]
        Tokenizer(build_wordpiece([*own, *words[:number]], True, None)).save(folder / name)
    splits = {
        name: make_columns(rows, rows)
        for name, rows in (("train", 24), ("validation", 5), ("test", 3))
    }
    Tokenizer(build_wordpiece(SPECIAL + WORDS, True, None)).save(folder / "rows_tokenizer")
    write_rows(folder / "rows", splits, len(SPECIAL + WORDS), folder / "rows_tokenizer")
    sentence = "1\tw1\tw1\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tw2\tw2\tVERB\t_\t_\t0\troot\t_\t_\n"
    (folder / TREEBANK).write_text("\n".join([sentence] * 8))
    return folder


# -------------------------------------------------------------------- what the functions make


def schedule(config):
    rate = make_schedule(config.schedule, 10.0)
    return [float(rate(step)) for step in range(11)]


def optimizer(config):
    """The second update: the first of Adam's is the sign of the gradient, whatever the moments."""
    params = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([1.0, 2.0])}
    made = make_optimizer(config.optimizer)
    state = made.init(params)
    for gradients in (params, jax.tree.map(lambda x: -0.3 * x, params)):
        updates, state = made.update(gradients, state, params)
    return updates


def masking(config):
    columns = {name: jnp.asarray(column) for name, column in make_columns(8, 0).items()}
    batch = RowBatch(
        **columns, row_numbers=jnp.arange(8, dtype=jnp.uint32), epochs=jnp.zeros(8, jnp.uint32)
    )
    vocabulary = Vocabulary(99, 4, [0, 1, 2, 3, 4], np.arange(99) % 2 == 1)
    return mask_tokens(jax.random.key(0), batch, config.masking, vocabulary, 0.5)._asdict()


def replaced_tokens(config):
    """The losses of a tiny discriminator and its generator, and their weights."""
    shape = shape_new_model(config.model, 99, {"pad_token_id": 0}, 16)
    vocabulary = Vocabulary(99, 4, list(range(5)), jnp.zeros(99, bool))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    step = make_step(config, shape, vocabulary, 10.0, mesh)
    columns = make_columns(4, 0)
    numbers = np.arange(4, dtype=np.uint32)
    batch = jax.tree.map(jnp.asarray, RowBatch(*columns.values(), numbers, numbers))
    params = jax.jit(step.model.init)(jax.random.key(0), batch.token_ids)["params"]
    part, _ = step.objective.prepare(batch, 0.0)
    rows = jnp.arange(4)
    totals, _ = jax.jit(lambda params: step.objective.totals(params, {}, part, rows, None))(params)
    return totals, dict(step.objective.terms)


def transfer(config):
    params = {"layers": {"kernel": np.ones((2, 3))}, "embeddings": {"embedding": np.ones(3)}}
    return learning_rate_scales(params, config.transfer)


def evaluation(config):
    is_due = DueEvaluations(config.evaluation, Clock(config.budget, 8, 1), 0.0)
    return [is_due(step, 0.0, 1.0) for step in range(9)]


def starting_model(config):
    task = read_task_data(config.task, config.data).task
    start = resolve_finetuned_model(config.model, task, config.seed)
    return [*start.config.to_dict().items()].__repr__()


def examples(config):
    data = read_task_data(config.task, config.data)
    trained = data.task_to_train(config.label_smoothing, config.class_weights)
    return repr((data[1:], trained.name, sorted(vars(trained).items(), key=lambda item: item[0])))


MAKERS = {
    "schedule": schedule,
    "optimizer": optimizer,
    "masking": masking,
    "replaced_tokens": replaced_tokens,
    "transfer": transfer,
    "evaluation": evaluation,
    "phases": lambda config: repr(make_phases(config.phases, 8, Clock(config.budget, 80, 8))),
    "mesh": lambda config: dict(make_mesh(config.mesh).shape),
    "budget": lambda config: (
        Clock(config.budget, 80, 8).total,
        Clock(config.budget, 80, 8).in_seconds,
    ),
    "data": examples,
    "": examples,
}
MODELS = {
    PretrainConfig: lambda config: (
        shape_new_model(config.model, 99, {"pad_token_id": 0}, 16).to_dict().__repr__()
    ),
    FinetuneConfig: starting_model,
}


# What must be compiled, or loaded, first.
COSTLY = {
    PretrainConfig: ("masking.", "optimizer.", "replaced_tokens."),
    FinetuneConfig: ("model.", "optimizer."),
}


@pytest.mark.parametrize(
    ("config_class", "name"),
    [
        pytest.param(
            kind,
            name,
            id=f"{kind.__name__}-{name}",
            marks=[pytest.mark.slow] * name.startswith(COSTLY[kind]),
        )
        for kind in (PretrainConfig, FinetuneConfig)
        for name, case in CASES[kind].items()
        if case
    ],
)
def test_field_of_a_training_has_an_effect(folder, monkeypatch, config_class, name):
    monkeypatch.chdir(folder)
    section = name.rpartition(".")[0]
    make = MODELS[config_class] if section == "model" else MAKERS[section]
    lines = lines_of(config_class, CASES[config_class][name])
    made = [outcome(make, config_class, words) for words in lines]
    assert differ(*made), lines


# -------------------------------------------------------------------- what the programs make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "config_class", "name"),
    [
        pytest.param(program, kind, name, id=f"{kind.__name__}-{name}")
        for program, kind in ((tokenizer, TokenizerConfig), (prepare, PrepareConfig))
        for name, case in CASES[kind].items()
        if case
    ],
)
def test_field_of_a_text_program_has_an_effect(
    folder, tmp_path, monkeypatch, capfd, program, config_class, name
):
    def run(words):
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        before = set(place.rglob("*"))
        monkeypatch.chdir(place)
        told = ""
        try:
            program.run(program.read_config(words))
        except UserError as error:
            told = f"refused: {error}"
        files = {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file() and path not in before
        }
        return told, capfd.readouterr().out, files

    without, given = lines_of(config_class, CASES[config_class][name])
    parse(config_class, "", without)
    assert run(without) != run(given), given


def test_number_of_workers_is_heeded(folder, monkeypatch):
    asked = []

    def record(*arguments):
        asked.append(arguments[3])
        raise UserError("enough")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(prepare, "prepare", record)
    for workers in ("2", "3"):
        words = [*LINES[PrepareConfig].split(), "--workers", workers]
        with pytest.raises(UserError, match="enough"):
            prepare.run(prepare.read_config(words))
    assert asked == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEP)
def test_field_of_a_sweep_has_an_effect(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "fake_program.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.syspath_prepend(tmp_path)
    fake = Program(["-m", "fake_program"], "fake_program", "FakeConfig")
    monkeypatch.setitem(PROGRAMS, "finetune", fake)
    monkeypatch.setattr("bertjax.sweeps.sweep._write_provenance", lambda *_: None)
    monkeypatch.setattr("bertjax.sweeps.report.draw_figures", lambda *_: [])
    monkeypatch.delitem(sys.modules, "fake_program", raising=False)

    def run(fields):
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        monkeypatch.chdir(place)
        Path("base.yaml").write_text("steps: 3\n")
        rate = {"optimizer.learning_rate": {"low": 0.1, "high": 0.9}}
        base = {"score": "accuracy", "sampler": "random", "fixed": {"pause": 0.0}, "trials": 2}
        try:
            sweep(SweepConfig(**{**base, "space": rate, "output": "sweep"} | fields))
        except UserError as error:
            return f"refused: {error}"
        folder = next(path.parent for path in place.glob("*/results.jsonl"))
        logs = [path.read_text() for path in sorted(folder.glob("trials/*.log"))]
        made = sorted(str(path.relative_to(place)) for path in folder.glob("*"))
        return comparable(read_results(folder)), logs, made, capsys.readouterr().out[:1] == "{"

    fields = SWEEP[name]
    others = {other: value for other, value in fields.items() if other != name}
    assert run(others) != run(fields)


# -------------------------------------------------------------------- what the trainings read

# Where a field is read without any effect: it is checked, written down, or handed on.
_NO_USE = {"__post_init__", "_identity", "_origin", "to_fields", "require_one", "_check_effect"}


@pytest.fixture
def watch(monkeypatch):
    """Watches a config class; gives the set of the fields that are put to use from then on."""

    def start(config_class):
        read = set()

        def is_use():
            frame = sys._getframe(2)
            while frame.f_code.co_name.startswith("<"):
                frame = frame.f_back
            from_library = frame.f_globals["__name__"] in ("dataclasses", "copy")
            return not from_library and frame.f_code.co_name not in _NO_USE

        def watch_class(kind, prefix):
            hints = typing.get_type_hints(kind)
            names = {field.name for field in dataclasses.fields(kind)}

            def get(self, name):
                if name in names and is_use():
                    read.add(prefix + name)
                return object.__getattribute__(self, name)

            monkeypatch.setattr(kind, "__getattribute__", get)
            for name in names:
                if dataclasses.is_dataclass(hints[name]):
                    watch_class(hints[name], f"{prefix}{name}.")

        watch_class(config_class, "")
        return read

    return start


def unread(config_class, read):
    """The fields that no case shows and the run did not read."""
    return {name for name, case in CASES[config_class].items() if not case} - read


@pytest.mark.slow
def test_fields_of_pretraining_are_read(folder, tmp_path, monkeypatch, known_rate, watch):
    monkeypatch.chdir(folder)
    read = watch(PretrainConfig)
    small = "--model.num-hidden-layers 2 --model.hidden-size 32 --model.num-attention-heads 2"
    words = f"--batch-size 8 --development.examples 3 --development.treebank {TREEBANK} {small}"
    words = [*LINES[PretrainConfig].split(), *words.split(), "--run", str(tmp_path / "run")]
    assert pretrain_program.run(pretrain_program.read_config(words)) == 0
    assert unread(PretrainConfig, read) == set()


@pytest.mark.slow
def test_fields_of_adaptation_are_read(folder, tmp_path, monkeypatch, known_rate, watch):
    monkeypatch.chdir(folder)
    read = watch(AdaptConfig)
    words = [*LINES[AdaptConfig].split(), "--development.examples", "3"]
    words += ["--development.treebank", TREEBANK, "--output", str(tmp_path / "run")]
    rows = "max_length: 16, pairing: none, validation_fraction: 0.2, test_fraction: 0.2"
    words += ["--preparation", f"{{{rows}}}", "--replay-preparation", f"{{{rows}}}"]
    assert adapt_program.run(adapt_program.read_config(words)) == 0
    # Its schedule is by default another one than that of which this is the exponent.
    assert unread(AdaptConfig, read) == {"schedule.power"}


@pytest.mark.slow
def test_fields_of_finetuning_are_read(folder, tmp_path, monkeypatch, known_rate, watch):
    monkeypatch.chdir(folder)
    read = watch(FinetuneConfig)
    words = "--max-length 16 --data.validation more.csv --data.test more.csv"
    words = [*LINES[FinetuneConfig].split(), *words.split(), "--run", str(tmp_path / "run")]
    assert finetune_program.run(finetune_program.read_config(words)) == 0
    assert unread(FinetuneConfig, read) == set()
