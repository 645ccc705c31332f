"""No accepted option is without effect: each one of each command changes what comes of it.

Every option has a case here: a command line, and what is added to it. Exit code, output, messages
or files must differ; a refusal is an effect, too. An option without a case fails.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil

import numpy as np
import pytest

from bertjax import cli
from bertjax.cli import COMMANDS, make_parser
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.commands.option_files import write_files

# What cannot differ here, and why.
HOW = "how a model is computed is loaded.load's, for all commands: tests/test_loaded.py"
ELSEWHERE = {
    **{
        (command, "--dtype"): HOW
        for command in (
            "fill-mask",
            "predict",
            "evaluate",
            "analyze",
            "explain",
            "what-if",
            "contexts",
            "prune",
        )
    },
    **{
        (command, "--attention"): HOW
        for command in ("fill-mask", "predict", "evaluate", "embed", "prune")
    },
    (
        "attention",
        "--overwrite",
    ): "needs a folder: tests/analysis/capture/test_export.py",
    ("bench", "what"): "there is one thing to measure",
    ("evaluate", "--watch"): "needs a run: tests/train/test_pretrain.py",
    ("evaluate", "--interval"): "the same",
}

MLM, LABELS, TAGS = (["--model", name] for name in ("mlm", "labels", "tags"))
TABLE = ["--input", "table.csv"]
# The options of tables and text files, after a command line that reads one.
READING = {
    "--text-column": [*TABLE, "--text-column", "other"],
    "--columns": ["--input", "bare.csv", "--columns", "text", "label"],
    "--delimiter": ["--input", "bars.csv", "--delimiter", "|"],
    "--quoting": [*TABLE, "--quoting", "none"],
    "--extra-columns": ["--input", "ragged.csv", "--extra-columns", "ignore"],
    "--encoding": ["--input", "latin.txt", "--encoding", "latin-1"],
    "--errors": ["--input", "latin.txt", "--errors", "replace"],
}
PAIRS = {**READING, "--pair-column": [*TABLE, "--pair-column", "other"]}


def labelled(option):
    """The options of labelled files, each with the files that show it."""
    return {
        **unlabelled(option),
        "--label-column": (LABELS, [option, "table.csv"], ["--label-column", "second"]),
        "--label-columns": (LABELS, [option, "table.csv"], ["--label-columns", "x", "y"]),
        "--label-separator": (LABELS, [option, "table.csv"], ["--label-separator", "|"]),
        "--spelling": (LABELS, [option, "twins.csv"], ["--spelling", "merge"]),
        "--tag-column": (TAGS, [option, "tags.conll"], ["--tag-column", "2"]),
        "--labels": (TAGS, [option, "tags.jsonl"], ["--labels", "O", "B-X", "I-X"]),
    }


def unlabelled(option):
    """Those of them that are of files without labels, too."""
    return {
        "--text-column": (LABELS, [option, "table.csv"], ["--text-column", "other"]),
        "--pair-column": (LABELS, [option, "table.csv"], ["--pair-column", "other"]),
        "--columns": (LABELS, [option, "bare.csv"], ["--columns", "text", "label"]),
        "--delimiter": (LABELS, [option, "bars.csv"], ["--delimiter", "|"]),
        "--quoting": (LABELS, [option, "table.csv"], ["--quoting", "none"]),
        "--scheme": (TAGS, [option, "tags.conll"], ["--scheme", "none"]),
        "--token-column": (TAGS, [option, "tags.conll"], ["--token-column", "2"]),
        "--encoding": (LABELS, [option, "latin.csv"], ["--encoding", "latin-1"]),
        "--errors": (LABELS, [option, "latin.csv"], ["--errors", "replace"]),
        "--max-length": (LABELS, [option, "long.csv"], ["--max-length", "8"]),
        "--extra-columns": (LABELS, [option, "ragged.csv"], ["--extra-columns", "ignore"]),
        "--format": (LABELS, [option, "table.dat"], ["--format", "csv"]),
    }


# Command -> (a command line, option -> what is added to it; or a triple: model, line, addition).
CASES = {
    "fill-mask": (
        [*MLM, "the [MASK] sees"],
        {
            **READING,
            "texts": ["a [MASK] ."],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--top-k": ["--top-k", "2"],
            "--json": ["--json"],
        },
    ),
    "embed": (
        [*MLM, "--output", "v.npy", "the dog sees a bird ."],
        {
            **READING,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--output": ["--output", "v.parquet"],
            "--pooling": ["--pooling", "cls"],
            "--normalize": ["--normalize"],
            "--dtype": ["--dtype", "bfloat16"],
            "--max-length": ["--max-length", "4"],
        },
    ),
    "attention": (
        [*MLM, "--output", "a.npz", "the dog sees a bird ."],
        {
            **PAIRS,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--output": ["--output", "a.arrow"],
            "--format": ["--format", "parquet"],
            "--layers": ["--layers", "1"],
            "--heads": ["--heads", "2"],
            "--words": ["--words"],
            "--hidden": ["--hidden"],
            "--context": ["--context"],
            "--dtype": ["--dtype", "float16"],
            "--max-length": ["--max-length", "4"],
            "--too-long": ["--max-length", "5", "--too-long", "windows"],
            "--json": ["--json"],
        },
    ),
    "explain": (
        [*MLM, "the [MASK] sees"],
        {
            **PAIRS,
            "--text-column": ["--input", "masks.csv", "--text-column", "other"],
            "--pair-column": ["--input", "masks.csv", "--pair-column", "other"],
            "texts": ["a [MASK] ."],
            "--input": ["--input", "masks.txt"],
            "--model": ["--model", "other"],
            "--answer": ["--answer", "dog"],
            "--word": ["--word", "the"],
            "--method": ["--method", "rollout"],
            "--faithfulness": ["--faithfulness"],
            "--json": ["--json"],
        },
    ),
    "what-if": (
        [*MLM, "--word", "1", "the dog sees a bird"],
        {
            **PAIRS,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--word": ["--word", "2"],
            "--by": ["--by", "red"],
            "--seed": (MLM, ["--json", "--word", "1", "the dog sees"], ["--seed", "5"]),
            "--json": ["--json"],
        },
    ),
    "contexts": (
        [*MLM, "--word", "dog", "the dog sees a bird", "--input", "text.txt"],
        {
            **PAIRS,
            "text": None,
            "--input": ["--input", "masks.txt"],
            "--model": ["--model", "other"],
            "--word": ["--word", "the"],
            "--layer": ["--layer", "0"],
            "--top-k": ["--top-k", "1"],
            "--any-word": ["--any-word"],
            "--seed": ["--seed", "5"],
            "--json": ["--json"],
        },
    ),
    "info": (["mlm"], {"directory": None, "--json": ["--json"]}),
    "compare": (
        ["a.json", "b.json"],
        {"a": None, "b": None, "--level": ["--level", "0.9"], "--json": ["--json"]},
    ),
    "verify": (
        [*MLM],
        {
            "--model": ["--model", "other"],
            "--against": ["--against", "other"],
            "--tolerance": ["--tolerance", "1e-30"],
            "--json": ["--json"],
        },
    ),
    "predict": (
        [*LABELS, "the dog sees"],
        {
            **unlabelled("--input"),
            # Names of tags that tell by themselves need no scheme.
            "--scheme": (["--model", "types"], ["--input", "tags.conll"], ["--scheme", "none"]),
            "texts": ["a bad bird"],
            "--input": ["--input", "table.csv"],
            "--model": ["--model", "tags"],
            "--output": ["--output", "p.jsonl"],
        },
    ),
    "evaluate": (
        [*LABELS, "--data", "table.csv"],
        {
            **labelled("--data"),
            "--data": ["--data", "bare.csv"],
            "--model": ["--model", "other_labels"],
            "--output": ["--output", "s.json"],
            "--resamples": ["--resamples", "0"],
            "--figures": ["--figures", "pictures"],
            "--without-heads": ["--without-heads", "0-1,1-2"],
            "--json": ["--json"],
        },
    ),
    "prune": (
        [*LABELS, "--data", "table.csv", "--heads", "1", "--output", "new"],
        {
            **{
                option: (model, [*line, "--heads", "1", "--output", "new"], more)
                for option, (model, line, more) in labelled("--data").items()
            },
            "texts": (MLM, ["--heads", "1", "--output", "new", "the dog sees"], ["a red bird"]),
            "--input": (
                MLM,
                ["--heads", "1", "--output", "new", "--input", "text.txt"],
                ["--input", "masks.txt"],
            ),
            "--model": ["--model", "other_labels"],
            "--data": ["--data", "bare.csv"],
            "--heads": ["--heads", "2"],
            "--by": ["--by", "random"],
            "--test": ["--test", "more.csv"],
            "--output": ["--output", "elsewhere"],
            "--shrink": ["--heads", "2", "--shrink"],
            "--normalize-layers": ["--normalize-layers"],
            "--max-examples": ["--max-examples", "1"],
            "--seed": ["--seed", "5"],
            "--json": ["--json"],
        },
    ),
}
# Commands that compile for long, or print times: lines in which every option is read. What each
# option does, their own tests show (tests/analysis, tests/verification, tests/planning).
READ = {
    "analyze": [
        [*MLM, "--text", "text.txt", "--output", "report"],
        [*LABELS, "--text", "text.txt", "--labels", "table.csv", "--output", "report"],
    ],
    "bench": [
        ["attention", "--shapes", "1x8x1x8", "--backends", "explicit", "--output", "times"],
        [
            *("attention", "--shapes", "1x8x1x8", "--backends", "explicit", "--rounds", "1"),
            *("--compare", "times/attention.json"),
        ],
    ],
    "plan": [
        ["--config", "plan.yaml", "--devices", "cpu:1", "--length", "16", "--vocab-size", "99"],
        ["--config", "plan.yaml", "--topology", "nowhere:1x1"],
    ],
}


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("tags", ["--input", "tags.conll", "--scheme", "none"], "--scheme none: the model's tags"),
        ("tags", ["the dog", "--scheme", "IO"], "are read as IOB2: B-TYPE, I-TYPE, O, regardless"),
        ("labels", ["the dog", "--scheme", "IO"], "--scheme IO: is of models that tag tokens"),
        ("tags", ["the dog", "--token-column", "2"], "--token-column is of files of tagged"),
        ("labels", ["the dog", "--token-column", "2"], "--token-column is of files of tagged"),
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
        ("other", "BertForMaskedLM", {"initializer_range": 0.5}),
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
