"""Commands in README.md and docs/ are parsed, none is started; files that they name are there."""

import argparse
import ast
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

import bertjax
from bertjax import cli
from bertjax.__main__ import TRAINING
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.sweeps import space as sweep_space

WAY = Path(__file__).parents[1]
PAGES = [
    *(WAY / name for name in ("README.md", "README.es.md", "CONTRIBUTING.md")),
    *sorted((WAY / "docs").glob("*.md")),
    *sorted((WAY / "docs" / "es").glob("*.md")),
]
PROGRAM = re.compile(
    r"(?:\$ )?(?:\S+/bin/)?(?:(bertjax|make|train/launch/local\.sh \d+)"
    r"|python -m ((?:train|benchmarks|tests)\.[\w.]+)|(?:python )?(?:benchmarks/)?(bench_\w+)\.py)"
    r"(?: (.*))?"
)
# What `...` stands for in a command of `bertjax pretrain`.
LEFT_OUT = ["--data", "rows", "--run", "run", "--budget.steps", "1"]


def find_commands(page):
    """Every command of ours in the code blocks and code spans of a page: program and words.

    A span without options (`bertjax embed`) only names a program: --help stands for it.
    """
    for found in re.finditer(r"^```\w*\n(.*?)^```|`([^`]+)`", page, re.S | re.M):
        block, span = found.groups()
        lines = [" ".join(span.split())] if span else block.replace("\\\n", " ").splitlines()
        for command in filter(None, map(PROGRAM.fullmatch, lines)):
            name, module, benchmark, rest = command.groups()
            words = shlex.split(rest or "", comments=True)
            if span and name != "make" and not any(word.startswith("--") for word in words):
                words.append("--help")
            yield name or module or f"benchmarks.{benchmark}", words


def blocks_of(page):
    """The code blocks of a page, comparable between languages: Python without its comments, of our
    commands the first two words, the lines of anything else.
    """
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page, re.S | re.M):
        if language == "python":
            yield ast.unparse(ast.parse(block))
        else:
            lines = block.replace("\\\n", " ").splitlines()
            yield [line.split()[:2] if PROGRAM.fullmatch(line) else line for line in lines]


def test_spanish_readme_has_the_code_and_the_outputs_of_the_english_one():
    english, spanish = ((WAY / name).read_text(encoding="utf-8") for name in map(str, PAGES[:2]))
    told = [*blocks_of(english)]
    assert len(told) > 8
    assert [*blocks_of(spanish)] == told
    pages = [
        set(re.findall(r"\]\((?!http)([^)#]+)", page)) - {"README.md", "README.es.md"}
        for page in (english, spanish)
    ]
    # The first notebook is there in Spanish.
    assert pages[0] - pages[1] == {"docs/notebooks/a_first_bert_in_ten_minutes.ipynb"}
    commands = [
        set(re.findall(r"`(?:bertjax )?([a-z][a-z-]+)[ `]", page)) & {*cli.PROGRAMS, *cli.COMMANDS}
        for page in (english, spanish)
    ]
    assert commands[0] == commands[1]


def test_version_is_the_last_one_of_the_changes():
    changes = (WAY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", changes, re.M)[:2] == ["Unreleased", bertjax.__version__]


# ------------------------------------------------------------------ each kind of program


def take(program, words):
    """Has the parser of a program read the words.

    Raises:
        UserError, SystemExit, AssertionError: it does not take them.
    """
    for word in words:
        assert not word.startswith("configs/") or (WAY / word).is_file(), f"{word}: no such file"
    if program == "make":
        for word in words:
            _take_make(word)
    elif program == "bertjax" and words and words[0] in cli.PROGRAMS:
        _take_config(words[0], words[1:])
    elif program == "bertjax":
        _, unknown = cli.make_parser().parse_known_args(words)
        assert not unknown
    elif program.startswith("train/launch/"):
        _take_config("pretrain", words)
    elif program.startswith("train."):
        _take_config(program.removeprefix("train."), words)
    else:
        _take_arguments(importlib.import_module(program), words)


def _take_make(word):
    makefile = (WAY / "Makefile").read_text()
    name, equals, _ = word.partition("=")
    known = f"$({name})" in makefile if equals else re.search(rf"^{name}:", makefile, re.M)
    assert known, f"{word} is nothing that the Makefile knows"


def _take_config(program, words):
    if "..." in words:
        words = [*LEFT_OUT, *(word for word in words if word != "...")]
    if "--config" in words:
        place = words.index("--config")
        if not words[place + 1].startswith("configs/"):  # a sweep makes it
            words = words[:place] + words[place + 2 :]
    config = importlib.import_module(f"bertjax.commands.{program}").read_config(words)
    if program == "sweep":
        sweep_space.flatten(config.fixed, sweep_space.program_config(config.program), "fixed")


class _ParsedError(Exception):
    """Nothing is wrong; it only leaves `main`."""


def _take_arguments(module, words):
    """For a `main` that makes its parser itself: it comes no further than that."""

    def parse_and_leave(parser, arguments=None):
        parser.allow_abbrev = False
        parse_args(parser, arguments)
        raise _ParsedError

    parse_args = argparse.ArgumentParser.parse_args
    arguments = [words] if inspect.signature(module.main).parameters else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *words])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)
        with pytest.raises(_ParsedError):
            module.main(*arguments)


# ------------------------------------------------------------------ the pages

COMMANDS = [
    pytest.param(program, words, id=f"{page.name}: {shlex.join([program, *words])}")
    for page in PAGES
    for program, words in find_commands(page.read_text(encoding="utf-8"))
]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(WAY)
    monkeypatch.syspath_prepend(WAY / "benchmarks")  # where a benchmark finds the others


@pytest.mark.parametrize(("program", "words"), COMMANDS)
def test_documented_command_is_taken(program, words):
    code = 0
    try:
        take(program, words)
    except SystemExit as end:  # of --help
        code = end.code
    assert code == 0


def test_commands_are_found_as_they_are_written():
    page = """
Try `bertjax embed`, `bench_step.py` and `bertjax verify --model
DIR`; read `bertjax/cli.py`, and `pretrain` of it.

```
$ make demo   # a comment
pip install it
.venv/bin/bertjax pretrain --data rows \\
  --run "my run"
step 1  loss 4.305
python benchmarks/bench_step.py --rows 8
train/launch/local.sh 2 --data rows
```
"""
    assert list(find_commands(page)) == [
        ("bertjax", ["embed", "--help"]),
        ("benchmarks.bench_step", ["--help"]),
        ("bertjax", ["verify", "--model", "DIR"]),
        ("make", ["demo"]),
        ("bertjax", ["pretrain", "--data", "rows", "--run", "my run"]),
        ("benchmarks.bench_step", ["--rows", "8"]),
        ("train/launch/local.sh 2", ["--data", "rows"]),
    ]


@pytest.mark.parametrize(
    "command",
    [
        "bertjax fill --help",
        "bertjax fill-mask --model DIR --topk 2 TEXT",
        "bertjax plan --config configs/pretrain/none.yaml --devices cpu:8",
        "bertjax pretrain ... --model.attention_windows 64",
        "bertjax sweep --output sweep --fixed.budget.epoch 1",
        "python -m benchmarks.bench_peers --peer torch",
        "python benchmarks/bench_step.py --rows many",
        "train/launch/local.sh 2 --data rows",
        "make tests",
        "make bench-peers MINI=DIR",
    ],
)
def test_wrong_command_is_refused(command):
    [(program, words)] = find_commands(f"```\n{command}\n```")
    with pytest.raises((UserError, SystemExit, AssertionError)):
        take(program, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_analysis_that_is_named_is_there(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:bertjax|benchmarks|configs|docs|tests|train)/[\w./-]+)`", text))
    analyses = re.findall(r"`((?:capture|explain|heads|layers|probes)\.[a-z_]+)`", text)
    named |= {f"bertjax/analysis/{name.replace('.', '/')}.py" for name in analyses}
    assert [name for name in sorted(named) if not (WAY / name).exists()] == []


def test_every_extra_that_is_named_is_there():
    """In the docs, and in what programs say when a library is missing."""
    extras = tomllib.loads((WAY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [*PAGES, *(WAY / "bertjax").rglob("*.py"), *(WAY / "train").rglob("*.py")]
    named = {
        extra: source.name
        for source in sources
        for extras_of in re.findall(r"bertjax\[([\w,-]+)\]", source.read_text(encoding="utf-8"))
        for extra in extras_of.split(",")
    }
    assert {"tasks", "tensorboard"} <= named.keys()
    assert named.keys() <= extras.keys(), named
    assert any("tensorboard" in need for need in extras["tensorboard"])


@pytest.mark.parametrize("page", ["README.md", "README.es.md"])
def test_commands_that_continue_are_named_beside_their_exit_code(page):
    [line] = re.findall(
        rf"^\| {STOPPED_EXIT_CODE} \|.*", (WAY / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert re.findall("`(.+?)`", line) == [*TRAINING]
