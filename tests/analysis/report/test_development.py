"""What is looked at in a model while it trains."""

import jax
import numpy as np
import pytest

from bertjax.analysis.heads.classes import CLASSES
from bertjax.analysis.probes.syntax import SyntaxCounts
from bertjax.analysis.probes.treebank import EncodedTreebank, Sentence, split_halves
from bertjax.analysis.report.development import (
    BY_LAYER,
    Development,
    best_head_accuracies,
    draw_development,
    read_examples,
)
from bertjax.program import libraries
from bertjax.program.errors import UserError
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.development_config import DevelopmentConfig

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(40))]
TOKENS += [f"##s{k}" for k in range(99 - len(TOKENS))]
CONTINUING = TOKENS.index("##s0")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(build_wordpiece(TOKENS, True, None))


@pytest.fixture(scope="module")
def rows():
    """Two rows of T=9: two examples and padding; one that fills its row, words in pieces."""
    piece = CONTINUING
    return {
        "token_ids": np.array([[2, 5, 6, 3, 2, 7, 3, 0, 0], [2, 8, piece, 9, 3, 10, 11, piece, 3]]),
        "token_type_ids": np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 1]]),
        "sequence_ids": np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1] * 9]),
    }


class RowsInMemory:
    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["token_ids"])

    def __getitem__(self, numbers):
        return {name: column[numbers] for name, column in self.columns.items()}


def test_examples_of_rows_have_their_words(tokenizer, rows):
    first, second, third = read_examples(tokenizer, rows, 9)
    assert first.tokens == first.words == ("[CLS]", "w0", "w1", "[SEP]")
    assert second.tokens == ("[CLS]", "w2", "[SEP]")
    assert third.words == ("[CLS]", "w3s0", "w4", "[SEP]", "w5", "w6s0", "[SEP]")
    assert third.word_ids.tolist() == [0, 1, 1, 2, 3, 4, 5, 5, 6]
    assert third.token_type_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert third.special.tolist() == [True, False, False, False, True, False, False, False, True]
    assert len(read_examples(tokenizer, rows, 2)) == 2


def test_figures_are_those_of_the_model_as_it_is(config, params, tokenizer, rows, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    rows = {name: np.tile(column, (3, 1)) for name, column in rows.items()}
    development = Development(
        DevelopmentConfig(examples=9), config, tmp_path / "tokenizer", RowsInMemory(rows), tmp_path
    )
    first = development.measure(params)
    assert {f"{name}_{layer}" for name in BY_LAYER for layer in (0, 1)} < first.keys()
    assert sum(first[f"heads_{name}"] for name in CLASSES) == 2 * 4
    assert first["cka_to_first"] == pytest.approx(1)
    assert (tmp_path / "first_model" / "config.json").exists()
    other = jax.tree.map(lambda leaf: leaf[..., ::-1], params)
    changed = development.measure(other)
    assert changed["cka_to_first"] < 0.99
    assert changed["entropy_0"] != first["entropy_0"]
    again = Development(  # as after a kill: the first model is read from the disk
        DevelopmentConfig(examples=9), config, tmp_path / "tokenizer", RowsInMemory(rows), tmp_path
    )
    assert again.measure(other) == changed


def test_best_head_is_chosen_on_one_half_and_measured_on_the_other():
    sentences = tuple(
        Sentence(
            f"s:{k}", (f"a{k}", "b"), np.array([-1, 0]), ("root", "obj"), ("X", "X"), ("X", "X")
        )
        for k in range(60)
    )
    choose, report = split_halves(sentences)
    hits = np.zeros((60, 2, 1, 2, 3), int)
    hits[choose, 1, 0, 1, 2] = (
        1  # the best one of the first half is right in a quarter of the other
    )
    hits[np.flatnonzero(report)[::4], 1, 0, 1, 2] = 1
    hits[report, 0, 0, 0, 0] = 1  # one that is always right there, and never was on the first
    counts = SyntaxCounts(
        ("obj",), np.ones((60, 1), int), hits, np.zeros((60, 1, 3), int), *np.zeros((3, 60), int)
    )
    quarter = len(np.flatnonzero(report)[::4]) / report.sum()
    assert best_head_accuracies(counts, EncodedTreebank(sentences, (), ())) == {
        "best_obj": pytest.approx(quarter)
    }


def test_figures_are_drawn(tmp_path):
    line = {f"{name}_{layer}": 0.1 * layer for name in BY_LAYER for layer in (0, 1)}
    line |= {f"heads_{name}": 1.0 for name in CLASSES} | {"cka_to_first": None, "best_obj": 0.5}
    draw_development(
        [{"step": step, "split": "analysis", **line} for step in (0, 10)], tmp_path / "d.png"
    )
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["d.png"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"examples": -1}, "development.examples=-1 must be at least 0"),
        ({"examples": 1}, "development.examples=1 must be 0"),
        ({"treebank": "t.conllu"}, "set that, too"),
        ({"examples": 5, "sentences": 1}, "development.sentences=1 must be at least 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        DevelopmentConfig(**fields)


def test_missing_library_is_named_before_anything_is_done(monkeypatch):
    monkeypatch.setitem(libraries.LIBRARIES, "analysis", ("no_such_library",))
    DevelopmentConfig()
    with pytest.raises(UserError, match="needs no_such_library"):
        DevelopmentConfig(examples=2)
