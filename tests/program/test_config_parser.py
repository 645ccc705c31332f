"""A dataclass as the config: from YAML, from flags, and what is said of what does not fit."""

import dataclasses
from typing import Literal

import pytest
import yaml

from bertjax.program.config_fields import flat_fields
from bertjax.program.config_parser import make_config, parse, to_yaml
from bertjax.program.errors import UserError


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the rate runs.

    Attributes:
        name: shape after the warm-up
        warm_up: share of the budget, in [0, 1)
    """

    name: Literal["linear", "cosine"] = "linear"
    warm_up: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up < 1:
            raise UserError(f"schedule.warm_up={self.warm_up} must be in [0, 1)")


@dataclasses.dataclass
class Config:
    """A program's config.

    Attributes:
        input: files to read
        output: where it goes, a directory
        vocab_size: tokens in the vocabulary
        rate: a number
        lower_case: whether letters are lowered
        limit: at most so many; null = all
        ids: whole numbers
        schedule: how the rate runs
        urgent: whether to hurry
    """

    output: str
    input: list[str] = dataclasses.field(default_factory=list)
    vocab_size: int = 99
    rate: float = 0.5
    lower_case: bool = True
    limit: int | None = None
    ids: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    urgent: bool = False


def read(*arguments):
    return parse(Config, "A program.", arguments)


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file and returns its path."""

    def write_file(content):
        path = tmp_path / "config.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


# ------------------------------------------------------------------ what fits


def test_defaults_are_the_dataclasses_own():
    assert read("--output", "out") == Config(output="out")


def test_flags_reach_nested_fields_with_their_types():
    config = read(
        *("--output", "out", "--vocab_size", "30522", "--rate", "1e-4", "--lower_case", "false"),
        *("--limit=7", "--schedule.name", "cosine", "--schedule.warm_up", "0"),
    )
    assert config == Config("out", [], 30522, 1e-4, False, 7, [1, 2], ScheduleConfig("cosine", 0.0))
    assert isinstance(config.schedule, ScheduleConfig)
    assert isinstance(config.schedule.warm_up, float)


def test_hyphen_and_underscore_are_the_same_in_an_option():
    words = ["--output", "out", "--vocab-size", "5", "--schedule.warm-up=0.5", "--lower-case=false"]
    config = read(*words)
    assert (config.vocab_size, config.schedule.warm_up, config.lower_case) == (5, 0.5, False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--urgent"], True),
        (["--urgent", "--rate", "1"], True),
        (["--urgent", "false"], False),
        (["--urgent=true"], True),
    ],
)
def test_switch_needs_no_value(words, expected):
    assert read("--output", "out", *words).urgent is expected


def test_hyphens_in_values_stay():
    config = read("--output=my-dir/a=b--c", "--input", "a-b.txt", "c_d.txt")
    assert config.output == "my-dir/a=b--c"
    assert config.input == ["a-b.txt", "c_d.txt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--input", "a.txt"], ["a.txt"]),
        (["--input", "a.txt", "b c.txt", 'quo"te.txt'], ["a.txt", "b c.txt", 'quo"te.txt']),
        (["--input=a.txt"], ["a.txt"]),
        (["--input", '["a.txt", "b.txt"]'], ["a.txt", "b.txt"]),
        (["--input", "1", "true", "null"], ["1", "true", "null"]),
        (["--input"], []),
    ],
)
def test_lists_are_given_as_separate_words(words, expected):
    assert read(*words, "--output", "out").input == expected
    assert read("--output", "out", *words).input == expected


def test_lists_of_numbers_are_numbers():
    assert read("--output", "out", "--ids", "3", "5").ids == [3, 5]


def test_flags_win_over_the_file_wherever_they_stand(write):
    path = write("output: from_file\nvocab_size: 7\nschedule: {name: cosine, warm_up: 0.3}\n")
    expected = Config("flag", vocab_size=7, schedule=ScheduleConfig("cosine", 0.2))
    flags = ["--output", "flag", "--schedule.warm_up", "0.2"]
    assert read("--config", path, *flags) == expected
    assert read(*flags, f"--config={path}") == expected


def test_resolved_config_reads_back_as_itself(write):
    config = Config(
        "räume", ["a.txt", "1"], 7, 2.5e-5, False, None, [], ScheduleConfig("cosine", 0.25)
    )
    text = to_yaml(config)
    assert "räume" in text
    assert list(yaml.safe_load(text)) == [field.name for field in dataclasses.fields(Config)]
    assert read("--config", write(text)) == config


def test_fields_are_named_with_their_dots():
    names = [name for name, _ in flat_fields(Config)]
    assert names[-3:] == ["schedule.name", "schedule.warm_up", "urgent"]
    assert "schedule" not in names


def test_help_is_the_docstring(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        parse(Config, "A program.\n\n    bertjax it\n\nThe end.", ["--help"], program="bertjax it")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "A program.\n\n    bertjax it\n\nThe end.\n" in text
    assert text.startswith("usage: bertjax it [--config FILE.yaml]")
    assert "A program's config:" in text
    assert "How the rate runs:" in text
    words = " ".join(text.split())
    assert "--output TEXT where it goes, a directory (required)" in words
    assert "--input TEXT ... files to read (default: none)" in words
    assert "--vocab-size N tokens in the vocabulary (default: 99)" in words
    assert "--limit N at most so many; null = all (default: null)" in words
    assert "--ids N ... whole numbers (default: 1 2)" in words
    assert "--schedule.name {linear,cosine} shape after the warm-up (default: linear)" in words
    assert "--schedule.warm-up X share of the budget, in [0, 1) (default: 0.1)" in words
    assert "CONFIG" not in words
    assert "--schedule " not in words


# ------------------------------------------------------------------ what does not


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vocab_sise", "5"], r"unknown key vocab_sise; did you mean 'vocab_size'\? \(--help"),
        (["--vocab-sise=5"], r"unknown key vocab_sise; did you mean 'vocab_size'\?"),
        (["--schedule.warmup", "0"], r"unknown key schedule.warmup; did you mean 'schedule.warm"),
        (["--warm-up", "0"], r"unknown key warm_up; did you mean 'schedule.warm_up'"),
        (["--schedul.warm-up", "0"], r"schedul.warm_up; did you mean 'schedule.warm_up'"),
        (["--shedule", "0"], r"unknown key shedule; did you mean 'schedule'"),
        (["--schedule.gentle", "0"], r"unknown key schedule.gentle \(--help"),
        (["--other.named", "0"], r"unknown key other.named \(--help"),
        (["--qqq", "5"], r"unknown key qqq \(--help lists them all\)"),
        (["--vocab", "5"], r"unknown key vocab"),  # no abbreviations
    ],
)
def test_unknown_flag_names_its_nearest_neighbour(words, message):
    with pytest.raises(UserError, match=message):
        read("--output", "out", *words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("vocab_sise: 5", r"unknown key vocab_sise; did you mean 'vocab_size'\?"),
        ("schedule: {warmup: 0}", r"unknown key schedule.warmup; did you mean 'schedule.warm_up'"),
        ("qqq: 5", r"unknown key qqq \(--help lists them all\)"),
    ],
)
def test_unknown_key_of_a_file_names_its_nearest_neighbour(write, content, message):
    with pytest.raises(UserError, match=message):
        read("--output", "out", "--config", write(content))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vocab_size", "many"], r"^vocab_size=many must be a whole number$"),
        (["--vocab_size", "1.5"], r"^vocab_size=1.5 must be a whole number$"),
        (["--vocab_size="], r"^vocab_size= must be a whole number$"),
        (["--rate", "fast"], r"^rate=fast must be a number$"),
        (["--lower_case", "maybe"], r"^lower_case=maybe must be true or false$"),
        (["--limit", "many"], r"^limit=many must be a whole number or null$"),
        (
            ["--schedule.name", "kosine"],
            r"^schedule.name=kosine must be one of linear, cosine; did you mean 'cosine'\?$",
        ),
        (["--ids", "1", "x"], r"^ids=.*x.* must be a list, each item a whole number$"),
        (["--vocab_size"], r"^--vocab_size takes one value; it must be a whole number$"),
        (["--rate", "1", "2"], r"^--rate takes one value, not '1 2'; it must be a number$"),
        (["--schedule", "cosine"], r"^schedule=cosine is no value for a section; give its fields:"),
        (["--config"], r"^--config takes one file: --config FILE.yaml$"),
        (["--config", "a.yaml", "b.yaml"], r"^--config takes one file"),
    ],
)
def test_wrong_value_is_told_with_field_rule_and_value(words, message):
    with pytest.raises(UserError, match=message) as caught:
        read("--output", "out", *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("vocab_size: many", r"^vocab_size=many must be a whole number$"),
        ("vocab_size:", r"^vocab_size is empty; it must be a whole number$"),
        ("output:", r"^output is empty; it must be text$"),
        ("output: no", r"^output=false must be text; put it in quotes$"),
        ("input: [a, 1]", r"^input=.* must be a list, each item text$"),
        ("schedule: 3", r"^schedule=3 is no value for a section; .*: schedule.name, schedule.warm"),
        ("schedule: []", r"^schedule=\[\] is no value for a section"),
        ("schedule: none", r"^schedule=none is no value for a section"),
        ("schedule: {name: {a: 1}}", r"^schedule.name=.* must be one of linear, cosine"),
        ("3: 4", r"^unknown key 3 "),
    ],
)
def test_wrong_value_in_a_file_is_told_like_a_flags(write, content, message):
    with pytest.raises(UserError, match=message):
        read("--output", "out", "--config", write(content))


def test_section_left_empty_in_a_file_gives_nothing(write):
    path = write("schedule:\n  # name: cosine\nvocab_size: 5\n")
    assert read("--output", "out", "--config", path) == Config("out", vocab_size=5)


def test_one_word_in_a_file_is_a_list_as_it_is_behind_a_flag(write):
    assert read("--output", "out", "--config", write("input: texts")).input == ["texts"]


def test_rule_of_a_nested_config_comes_through_as_it_is(write):
    message = r"^schedule.warm_up=1.5 must be in \[0, 1\)$"
    with pytest.raises(UserError, match=message):
        read("--output", "out", "--schedule.warm_up", "1.5")
    with pytest.raises(UserError, match=message):
        read("--output", "out", "--config", write("schedule: {warm_up: 1.5}"))


@dataclasses.dataclass(frozen=True)
class Owner:
    """A config with a schedule of its own."""

    schedule: ScheduleConfig = dataclasses.field(
        default_factory=lambda: ScheduleConfig(warm_up=0.5)
    )


def test_section_begins_from_what_its_owner_makes_it(capsys):
    assert parse(Owner, "", ["--schedule.name", "cosine"]).schedule.warm_up == 0.5
    assert make_config(Owner, {"warm_up": 0.25}).schedule == ScheduleConfig("linear", 0.25)
    with pytest.raises(SystemExit):
        parse(Owner, "", ["--help"])
    assert "in [0, 1) (default: 0.5)" in capsys.readouterr().out


def test_missing_value_that_has_no_default_is_named():
    with pytest.raises(UserError, match=r"^--output is missing \(--help lists"):
        read("--vocab_size", "5")


@pytest.mark.parametrize("form", [["--config", "no.yaml"], ["--config=no.yaml"]])
def test_missing_file_is_named(form):
    with pytest.raises(UserError, match=r"^--config no.yaml: no such file$"):
        read("--output", "out", *form)


def test_directory_is_no_config(tmp_path):
    with pytest.raises(UserError, match=r"^--config .*: is a directory; name a file in it$"):
        read("--output", "out", "--config", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1, 2", r"--config .*config.yaml: not YAML: .*line 1"),
        (b"\xff\xfe\x00", r"--config .*config.yaml: not YAML: "),
        (b"output: \xff", r"--config .*config.yaml: not YAML: "),
        ("- a\n- b", r"--config .*: a config is a mapping of field names to values, .*\['a', 'b'"),
        ("just words", r"a config is a mapping.* this file holds 'just words'"),
        ("", r"--config .*config.yaml: has no fields"),
        ("# seed: 1", r"--config .*config.yaml: has no fields"),
    ],
)
def test_broken_file_is_told_in_one_paragraph(write, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read("--output", "out", "--config", write(content))
    assert "\n" not in str(caught.value)


def test_word_without_an_option_is_refused():
    with pytest.raises(UserError, match=r"stray"):
        read("--output", "out", "stray")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--rate", "nan"], "rate=nan must be a number"),
        (["--rate", ".nan"], "rate=nan must be a finite number"),
        (["--rate=-.inf"], "rate=-inf must be a finite number"),
        (["--rate", "1e999"], "rate=inf must be a finite number"),
        (["--schedule.warm-up", "nan"], "schedule.warm_up=nan must"),
        (["--vocab-size", str(10**25)], f"vocab_size={10**25} must be at most 4,294,967,295"),
        (["--limit", str(-(10**25))], "must be at least -4,294,967,295"),
    ],
)
def test_number_that_means_nothing_is_refused(words, rule):
    with pytest.raises(UserError, match=rule):
        read("--output", "o", *words)


# ------------------------------------------------------------------ from Python


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": {"name": "cosine", "warm_up": 0}},
        {"schedule": ScheduleConfig("cosine", 0.0)},
        {"schedule.name": "cosine", "schedule.warm_up": 0},
        {"name": "cosine", "warm_up": 0},
    ],
)
def test_field_is_named_in_its_section_with_dots_or_by_its_end(fields):
    config = make_config(Config, {"output": "out", "ids": (3, 5), **fields})
    assert config == Config("out", ids=[3, 5], schedule=ScheduleConfig("cosine", 0.0))
    assert type(config.schedule.warm_up) is float


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": 0.1}, r"unknown key warmup; did you mean 'schedule.warm_up'"),
        (
            {"schedule": {"nam": "cosine"}},
            r"unknown key schedule.nam; did you mean 'schedule.name'",
        ),
        ({"schedule": 3}, r"schedule=3 is no value for a section"),
        ({"vocab_size": 1.5}, r"^vocab_size=1.5 must be a whole number$"),
        ({"rate": float("nan")}, r"^rate=nan must be a finite number$"),
        ({"lower_case": 1}, r"^lower_case=1 must be true or false$"),
        ({"limit": True}, r"^limit=true must be a whole number or null$"),
        ({"ids": ["x"]}, r"^ids=.*x.* must be a list, each item a whole number$"),
        ({"name": "kosine"}, r"^schedule.name=kosine must be one of .* did you mean 'cosine'"),
    ],
)
def test_wrong_field_from_python_is_refused_as_that_of_a_file(fields, message):
    with pytest.raises(UserError, match=message):
        make_config(Config, {"output": "out", **fields})


def test_end_that_two_fields_share_is_no_name_of_either():
    @dataclasses.dataclass
    class Two:
        """Two schedules.

        Attributes:
            one: the first
            other: the second
        """

        one: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
        other: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)

    with pytest.raises(UserError, match=r"^warm_up may be one.warm_up or other.warm_up; name one"):
        make_config(Two, {"warm_up": 0.5})
