"""What a treebank is good for is decided by its labels, before anything is measured."""

import numpy as np
import pytest

from bertjax.analysis.probes.treebank import Sentence, encode_treebank
from bertjax.analysis.report.subject import Subject
from bertjax.analysis.report.survey_treebank import SURVEYS
from bertjax.analysis.report.treebank_plan import plan_treebank
from tests.analysis.tiny_bodies import WORDS, make_body

ALL = ("relations", "trees", "structure", "upos", "relation", "mixing")


@pytest.fixture(scope="module")
def body():
    return make_body()


def make_sentences(number, *, words=WORDS, tags=("DET", "NOUN"), relations=("det", "obj"), size=3):
    """Sentences of so many words, each the dependent of the next."""
    draw, sentences = np.random.default_rng(0), []
    for k in range(number):
        heads = np.array([*range(1, size), -1])
        own = [relations[word % len(relations)] for word in range(size - 1)]
        sentences.append(
            Sentence(
                f"t:{k}",
                tuple(draw.choice(words, size)),
                heads,
                (*own, "root"),
                tuple(tags[word % len(tags)] for word in range(size)),
                ("_",) * size,
            )
        )
    return sentences


def plan(body, sentences):
    found = plan_treebank(encode_treebank(body.tokenizer, sentences, 48), body.config)
    return found, " | ".join(found.notes)


def test_everything_is_measured_on_a_treebank_that_has_everything(body):
    found, notes = plan(body, make_sentences(200))
    assert (found.studies, notes) == (ALL, "")


@pytest.mark.parametrize(
    ("kind", "left_out", "message"),
    [
        (
            {"relations": ("dep",)},
            {"relation"},
            "the same relation, 'dep'; a probe needs at least two",
        ),
        ({"tags": ("X",)}, {"upos", "mixing"}, "probes of parts of speech, mixing weights: left"),
        ({"tags": ("_",)}, {"upos", "mixing"}, "has no word with part of speech"),
        ({"size": 1}, {*ALL} - {"upos", "mixing"}, "no sentence of two words"),
        ({"words": ("qqq", "zzz")}, set(), ""),
        ({"number": 1}, {*ALL}, "no relation has 20 words in both halves of the 1 sentence "),
        ({"number": 12}, {"relations"}, "no relation has 20 words"),
    ],
    ids=["one relation", "one tag", "no tags", "single words", "unknown words", "one", "few"],
)
def test_each_study_stands_for_itself(body, kind, left_out, message):
    sentences = make_sentences(**({"number": 200} | kind))
    if kind == {"size": 1}:  # all that the tag of a lone word could be learnt from
        sentences = [one._replace(upos=(("A", "B")[k % 2],)) for k, one in enumerate(sentences)]
    found, notes = plan(body, sentences)
    assert {*ALL} - {*found.studies} >= left_out
    if "number" not in kind:
        assert {*ALL} - {*found.studies} == left_out
    assert message in notes


def test_what_can_be_measured_is_and_progress_adds_up(body):
    found, _ = plan(body, make_sentences(60, relations=("dep",), tags=("X",)))
    assert found.studies == ("relations", "trees", "structure")
    subject = Subject(body, (), (), seed=1, treebank=found)
    (syntax, syntax_done), (probes, probes_done) = (measure(survey, subject) for survey in SURVEYS)
    assert [table.name for table in syntax.tables] == ["relations", "trees"]
    assert [curve.name for curve in probes.curves] == ["structure"]
    assert [row[0] for row in probes.tables[0].rows] == ["trees (structural probe), UUAS"]
    assert (syntax_done, probes_done) == (120, 120 + 1)


def measure(survey, subject):
    """A section and its progress, which adds up to what the survey says."""
    done = []
    part = survey.measure(subject, done.append)
    assert sum(done) == survey.total(subject)
    return part, sum(done)


def test_heads_alone_are_asked_where_relations_are_rare(body):
    found, _ = plan(body, make_sentences(14))
    assert "relations" not in found.studies
    assert "trees" in found.studies
    part, _ = measure(SURVEYS[0], Subject(body, (), (), seed=1, treebank=found))
    assert [table.name for table in part.tables] == ["trees"]
    assert [figure.name for figure in part.head_figures] == ["spanning-tree"]
