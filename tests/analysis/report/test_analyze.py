"""`bertjax analyze` from texts to the report, on small models."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.report import analyze, pages
from bertjax.analysis.report.analyze import plan_analysis
from bertjax.commands import screen
from bertjax.loaded import Model
from bertjax.model.bert import BertModel
from bertjax.program import libraries
from tests.analysis.saved import WORDS, save
from tests.analysis.tiny_bodies import make_tokenizer
from tests.families.tiny import tiny_config


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS, 7)) for _ in range(9)]
    path.write_text("\n\n".join(lines) + "\n" + " ".join(WORDS * 2) + "\n")  # one is too long
    return path


@pytest.fixture
def no_pictures(monkeypatch):
    """Where other tests draw the same ones, which takes as long as all the rest."""
    monkeypatch.setattr(pages, "draw_figures", lambda data: [])


def test_report_has_every_section_that_the_model_allows(
    bertjax_command, texts, tmp_path, monkeypatch
):
    model = save(tmp_path, "BertForMaskedLM")
    stages = record_stages(monkeypatch)
    code, out, err = bertjax_command(
        "analyze", "--model", model, "--text", texts, "--output", tmp_path / "report",
        "--shown", 2, "--json",
    )  # fmt: skip
    assert code == 0, err
    names = ["attention", "similarity of the layers", "words", "importance of the heads"]
    numbered = [f"{number} of 4: {name}" for number, name in enumerate(names, start=1)]
    assert [name for name, *_ in stages] == numbered
    assert all(done == total for _, total, done in stages), stages
    numbers = json.loads(out)
    assert numbers == json.loads((tmp_path / "report" / "numbers.json").read_text())
    names = {one["name"] for one in numbers["headFigures"]}
    assert {"entropy", "previous", "class", "nearest", "importance"} <= names
    assert "block" not in names  # there are no pairs
    assert {one["name"] for one in numbers["curves"]} == {"far-words", "lens", "pruning"}
    entropy = next(one for one in numbers["headFigures"] if one["name"] == "entropy")
    assert np.shape(entropy["figures"]["value"]) == (2, 3)
    assert any("intervals of so few" in note for note in numbers["notes"])
    assert "intervals of so few" in err
    facts = dict(numbers["facts"])
    assert facts["texts"] == 10
    page = (tmp_path / "report" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "report" / "figures").is_dir()


def record_stages(monkeypatch):
    """[what, total, done] of every bar that a command shows."""
    stages = []

    @contextlib.contextmanager
    def count_on(what, total):
        stages.append([what, total, 0])

        def move_on(done, said=""):
            stages[-1][2] += done

        yield move_on

    monkeypatch.setattr(screen, "count_on", count_on)
    return stages


@pytest.mark.whole
def test_labels_say_which_heads_matter_for_the_task(bertjax_command, texts, tmp_path, no_pictures):
    labels = ("no", "yes")
    model = save(tmp_path, "BertForSequenceClassification", id2label=labels)
    table = tmp_path / "labelled.csv"
    table.write_text(
        "words,class\n" + "".join(f"the {w} dog,{labels[k % 2]}\n" for k, w in enumerate(WORDS))
    )
    code, _, err = bertjax_command(
        "analyze", "--model", model, "--text", texts, "--labels", table, "--limit", 6,
        "--output", tmp_path / "report", "--text-column", "words", "--label-column", "class",
    )  # fmt: skip
    assert code == 0, err
    assert "first 6 of 10 texts" in err
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert {one["name"] for one in numbers["curves"]} == {"far-words", "pruning"}
    assert numbers["lenses"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-length", 99), "must be between 3 and the model's 12 positions"),
        (("--shown", 0), "--shown 0 must be at least 1"),
        (("--limit", -1), "--limit -1 must be at least 0"),
        (("--seed", -1), "--seed -1 must be at least 0"),
        (
            ("--label-column", "x"),
            "--label-column applies to labelled files, and none are read",
        ),
        (("--label-names", "x"), "--label-names applies to labelled files"),
        (("--text-column", "x"), "--text-column applies to tables"),
        (("--labels", "none.csv"), "has no head of a supervised task"),
        (("--treebank", "none.conllu"), "none.conllu"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    bertjax_command, texts, tmp_path, options, message
):
    model = save(tmp_path, "BertForMaskedLM")
    code, _, err = bertjax_command(
        "analyze", "--model", model, "--text", texts, "--output", tmp_path / "report", *options
    )
    assert (code, "Traceback" in err) == (2, False)
    assert message in err
    assert not (tmp_path / "report").exists()


def test_output_is_looked_at_before_anything_is_measured(bertjax_command, texts):
    for output in (texts, texts / "report"):
        code, _, err = bertjax_command(
            "analyze", "--model", "no such model", "--text", texts, "--output", output
        )
        assert code == 2
        assert f"--output {output}: {texts} is a file; name a folder" in err


def test_labels_that_the_model_does_not_know_are_told(bertjax_command, texts, tmp_path):
    model = save(tmp_path, "BertForSequenceClassification", id2label=("no", "yes"))
    table = tmp_path / "labelled.csv"
    table.write_text("text,label\nthe dog,yes\nthe cat,maybe\n")
    code, _, err = bertjax_command(
        "analyze", "--model", model, "--text", texts, "--labels", table,
        "--output", tmp_path / "report",
    )  # fmt: skip
    assert (code, "Traceback" in err) == (2, False)
    assert "labelled.csv:3" in err
    assert "maybe" in err


def test_small_treebank_does_not_cost_the_report(bertjax_command, texts, tmp_path, no_pictures):
    treebank = tmp_path / "small.conllu"
    rows = ("1\tthe\t_\tDET\t_\t_\t2\tdet\t_\t_", "2\t[SEP]\t_\tNOUN\t_\t_\t0\troot\t_\t_")
    treebank.write_text("\n".join(rows) + "\n\n")
    code, _, err = bertjax_command(
        "analyze", "--model", save(tmp_path, "BertModel"), "--text", texts,
        "--treebank", treebank, "--output", tmp_path / "report",
    )  # fmt: skip
    assert code == 0, err
    assert "[SEP] spelled out in 1 of 1 sentence: read as letters" in err
    notes = json.loads((tmp_path / "report" / "numbers.json").read_text())["notes"]
    for what in ("relations: left out, no relation has 20", "structural probes: left out, the "):
        assert any(what in note for note in notes)
        assert what in err


@pytest.mark.slow
def test_page_shows_as_many_texts_as_it_has_room_for(bertjax_command, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(analyze, "texts_with_room", lambda shapes: len(shapes) - 2)
    code, _, err = bertjax_command(
        "analyze", "--model", save(tmp_path, "BertForMaskedLM"), "--text", texts,
        "--output", tmp_path / "report", "--shown", 5,
    )  # fmt: skip
    assert code == 0, err
    assert "room for the attention of the first 3 texts, not of 5 (--shown)" in err
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert len(numbers["lenses"]) == 3


@pytest.mark.slow
def test_treebank_adds_syntax_and_probes(bertjax_command, texts, tmp_path):
    model = save(tmp_path, "BertForMaskedLM")
    draw = np.random.default_rng(1)
    rows = ("DET det 2", "NOUN nsubj 3", "VERB root 0", "DET det 5", "NOUN obj 3", "PUNCT punct 3")
    choices = (
        ("the", "a"),
        ("dog", "cat"),
        ("sees", "hears"),
        ("the", "a"),
        ("bird", "cat"),
        (".",),
    )
    lines = []
    for _ in range(150):
        for number, (row, words) in enumerate(zip(rows, choices, strict=True), start=1):
            tag, relation, head = row.split()
            word = draw.choice(words)
            lines.append(f"{number}\t{word}\t{word}\t{tag}\t{tag}\t_\t{head}\t{relation}\t_\t_")
        lines.append("")
    treebank = tmp_path / "small.conllu"
    treebank.write_text("\n".join(lines) + "\n")
    code, _, err = bertjax_command(
        "analyze", "--model", model, "--text", texts, "--treebank", treebank,
        "--output", tmp_path / "report",
    )  # fmt: skip
    assert code == 0, err
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert {one["name"] for one in numbers["tables"]} == {"relations", "trees", "probes"}
    names = {one["name"] for one in numbers["curves"]}
    assert {"structure", "probe-upos", "probe-relation", "mixing"} <= names
    relations = next(one for one in numbers["tables"] if one["name"] == "relations")
    assert {"det", "nsubj", "obj"} <= {row[0] for row in relations["rows"]}


@pytest.mark.whole
def test_text_without_a_known_word_costs_the_sections_that_need_one(bertjax_command, tmp_path):
    code, _, err = bertjax_command(
        "analyze", "--model", save(tmp_path, "BertForMaskedLM"), "qqq zzz", "--output",
        tmp_path / "report",
    )  # fmt: skip
    assert code == 0, err
    assert "similarity of the layers: left out, it needs two texts" in err
    assert "importance of the heads: left out, no token" in err
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert {one["name"] for one in numbers["curves"]} == {"far-words", "lens"}


def test_missing_library_is_named(bertjax_command, texts, tmp_path, monkeypatch):
    monkeypatch.setitem(libraries.LIBRARIES, "analysis", ("no_such_library",))
    code, _, err = bertjax_command(
        "analyze", "--model", tmp_path, "--text", texts, "--output", tmp_path / "report"
    )
    assert code == 2
    assert "bertjax analyze needs no_such_library, which is not installed; pip install" in err


@pytest.mark.parametrize(
    ("family", "fields", "told"),
    [
        ("bert", {}, {}),
        ("albert", {}, {"parameters": "the same in all layers"}),
        (
            "bert",
            {"attention_window": 3},
            {"local layers": "all: a token sees 3 tokens to either side"},
        ),
        (
            "modernbert",
            {"num_hidden_layers": 5, "local_attention": 9},
            {
                "positions": "rotary, of base 160,000 (global layers), 10,000 (local ones)",
                "local layers": "1, 2, 4: a token sees 4 tokens to either side",
            },
        ),
        (
            "modernbert",
            {"num_hidden_layers": 2, "global_attn_every_n_layers": 1, "global_rope_theta": 500.0},
            {"positions": "rotary, of base 500 (global layers), 10,000 (local ones)"},
        ),
    ],
)
def test_head_of_the_page_tells_what_differs_from_berts_layers(family, fields, told):
    module = BertModel(tiny_config(family, **fields))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 1), jnp.int32))["params"]
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    texts = [("here", "the dog"), ("there", "a cat")]
    facts = plan_analysis(Model(module, params, make_tokenizer()), texts).facts
    names = ("parameters", "positions", "local layers")
    assert {name: facts[name] for name in names if name in facts} == told
