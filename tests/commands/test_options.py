"""No accepted option is without effect: each one of each command changes what comes of it.

Every option has a case in `option_cases`: a command line, and what is added to it. Exit code,
output, messages or files must differ; a refusal is an effect, too. An option without a case fails.
"""

import argparse
import contextlib
import hashlib
import inspect
import os
import re
import shutil

import numpy as np
import pytest

from bertjax import cli
from bertjax.cli import COMMANDS, make_parser
from bertjax.commands.evaluate import RESAMPLES
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.commands.asked_server import ask
from tests.commands.option_cases import CASES, ELSEWHERE, MLM, READ
from tests.commands.option_files import write_files


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("tags", ["--input", "tags.conll", "--scheme", "none"], "--scheme none: the model's tags"),
        ("tags", ["the dog", "--scheme", "IO"], "are read as IOB2: B-TYPE, I-TYPE, O, regardless"),
        ("labels", ["the dog", "--scheme", "IO"], "--scheme IO: applies to models that tag tokens"),
        ("tags", ["the dog", "--token-column", "2"], "--token-column applies to files of tagged"),
        ("labels", ["the dog", "--token-column", "2"], "--token-column applies to files of tagged"),
    ],
)
def test_predict_refuses_options_of_tags_without_effect(outcome, model, words, message):
    code, out, err, _ = outcome(["predict", "--model", model, *words])
    assert (code, out, message in err) == (2, "", True)


def options_of(name):
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    return {
        action.option_strings[0] if action.option_strings else action.dest
        for action in parser._actions
    } - {"-h"}


def test_every_option_of_every_command_has_a_case():
    assert CASES.keys() | READ.keys() == COMMANDS.keys()
    for name, (_, options) in CASES.items():
        elsewhere = {option for command, option in ELSEWHERE if command == name}
        assert options_of(name) == options.keys() | elsewhere, name
    for reason in ELSEWHERE.values():
        for path in re.findall(r"tests/\S+", reason):
            assert os.path.isfile(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The models and files that the cases name."""
    folder = tmp_path_factory.mktemp("options")
    labels = {"id2label": ("good", "bad")}
    for name, architecture, fields in (
        ("mlm", "BertForMaskedLM", {}),
        ("other", "BertForMaskedLM", {"layer_norm_eps": 0.5}),
        ("labels", "BertForSequenceClassification", labels),
        ("other_labels", "BertForSequenceClassification", {"id2label": ("bad", "good")}),
        ("tags", "BertForTokenClassification", {"id2label": ("O", "B-X", "I-X")}),
        ("types", "BertForTokenClassification", {"id2label": ("O", "PER", "LOC")}),
    ):
        (folder / f"made_{name}").mkdir()
        shutil.copytree(save(folder / f"made_{name}", architecture, **fields), folder / name)
    write_files(folder)
    return folder


@pytest.fixture
def outcome(folder, tmp_path, monkeypatch, capfd):
    """Runs a command line in a fresh copy of the folder; what can be seen of it, hashed."""

    def run(words):
        place = tmp_path / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        before = set(place.rglob("*"))
        monkeypatch.chdir(place)
        monkeypatch.setattr("uvicorn.Server.run", ask)
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        made = {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path not in before and path.is_file()
        }
        return stopped.value.code, *capfd.readouterr(), made

    return run


def lines_of(name, option):
    """The command line without the option and with it."""
    base, options = CASES[name]
    case = options[option]
    if isinstance(case, tuple):
        model, line, more = case
        return [name, *model, *line], [name, *model, *line, *more]
    if case is None:  # a place in the line: another word there
        other = {"info": "labels", "compare": "c.json", "contexts": "a dog hears"}[name]
        place = {"b": 1, "text": 4}.get(option, 0)
        return [name, *base], [name, *base[:place], other, *base[place + 1 :]]
    texts = [word for word in base if " " in word]
    if "--input" in case and name != "contexts":
        base = [word for word in base if word not in texts]
        files = case[case.index("--input") : case.index("--input") + 2]
        line = [name, *base, *files]
        return (
            ([name, *base, *texts], line) if option == "--input" else (line, [name, *base, *case])
        )
    if option == "texts":
        return [name, *base], [name, *[word for word in base if word not in texts], *case]
    return [name, *base], [name, *base, *case]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, (_, options) in CASES.items() for option in options],
)
def test_option_has_an_effect(outcome, folder, name, option):
    if name == "compare":
        write_scores(folder)
    without, given = lines_of(name, option)
    make_parser().parse_args(given)  # a refusal by the parser would be no effect
    assert outcome(without) != outcome(given), (without, given)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_option_is_read(folder, tmp_path, monkeypatch, name):
    read = set()

    class Options(argparse.Namespace):
        def __getattribute__(self, option):
            read.add(option)
            return super().__getattribute__(option)

    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    for line in READ[name]:
        options = make_parser().parse_args([name, *line])
        with contextlib.suppress(UserError):
            options.run(Options(**vars(options)))
    assert {*vars(options)} - {"run", "parser", "what"} - read == set()


def write_scores(folder):
    from bertjax.program.strict_json import to_json

    rng = np.random.default_rng(0)
    for name, chance in (("a", 0.5), ("b", 0.55), ("c", 0.9)):
        outcomes = (rng.random(80) < chance).astype(float).tolist()
        about = {"task": "classification", "data": ["x"], "fingerprint": "f"}
        text = to_json({**about, "slice_score": "accuracy", "outcomes": outcomes})
        (folder / f"{name}.json").write_text(text)


def test_same_line_has_the_same_outcome(outcome):
    """Else a difference would tell nothing."""
    words = ["fill-mask", *MLM, "the [MASK] sees"]
    assert outcome(words) == outcome(words)


@pytest.mark.parametrize("command", ["analyze", "explain", "what-if", "contexts", "prune"])
def test_command_that_studies_a_model_computes_in_float32(command):
    [parsers] = [action for action in make_parser()._actions if action.choices]
    assert parsers.choices[command].get_default("dtype") == "float32"


def test_methods_have_the_defaults_of_their_commands():
    [parsers] = [action for action in make_parser()._actions if action.choices]
    differing = set()
    for name, command in parsers.choices.items():
        method = getattr(Model, name.replace("-", "_"), None)
        for taken in inspect.signature(method).parameters.values() if method else ():
            its = command.get_default(taken.name)
            if isinstance(its, int | float) and its != taken.default:
                differing.add((name, taken.name))
    assert differing == {("analyze", "limit")}  # a list of texts is as long as it was made
    assert inspect.signature(Model.evaluate).parameters["resamples"].default == RESAMPLES
