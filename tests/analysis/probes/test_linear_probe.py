import json

import numpy as np
import pytest

from bertjax.analysis.probes.label_tasks import (
    make_control_task,
    make_label_batches,
    make_task,
    sum_by_sentence,
)
from bertjax.analysis.probes.linear_probe import study_linear_probes
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors
from bertjax.program.errors import UserError

SIZE = 50
TYPES = 40
TAGS = ("ADJ", "NOUN", "VERB")
SPLITS = {"train": np.arange(200), "validation": np.arange(200, 240), "test": np.arange(240, 300)}


@pytest.fixture(scope="module")
def language():
    """Sentences of 8 words; half of the types always have the same tag, the others have any."""
    random = np.random.default_rng(0)
    types = random.integers(TYPES, size=(300, 8))
    tags = np.where(types < TYPES // 2, types % 3, random.integers(3, size=types.shape))
    relations = random.integers(3, size=types.shape)
    sentences = [
        Sentence(
            "",
            tuple(map(str, own)),
            np.arange(8) - 1,
            ("root", *(f"r{number}" for number in kinds[1:])),
            tuple(TAGS[tag] for tag in tagged),
            ("_", *(TAGS[tag] for tag in tagged[1:])),
        )
        for own, tagged, kinds in zip(types, tags, relations, strict=True)
    ]
    return sentences, types.ravel(), tags.ravel(), relations.ravel()


def vectors_with(types, *layers):
    return WordVectors(np.stack(layers).astype(np.float32), np.arange(0, len(types) + 1, 8), types)


@pytest.fixture(scope="module")
def figures(language):
    """Layer 0 holds the type alone, layer 1 the tag alone, layer 2 nothing; the control nothing."""
    sentences, types, tags, _ = language
    random = np.random.default_rng(1)
    noise = random.normal(size=(3, len(types), SIZE))
    by_type = random.normal(size=(TYPES, SIZE))[types]
    by_tag = random.normal(size=(3, SIZE))[tags]
    model = vectors_with(types, by_type, by_tag, noise[0])
    control = vectors_with(types, *noise)
    return study_linear_probes("upos", model, control, sentences, SPLITS)


def test_probe_on_fixed_word_vectors_is_not_selective(language):
    """Every type has one tag: what is learnt by heart is all that there is, in both tasks."""
    sentences, types, *_ = language
    fixed = [
        own._replace(upos=tuple(TAGS[int(word) % 3] for word in own.words)) for own in sentences
    ]
    random = np.random.default_rng(2)
    vectors = vectors_with(types, random.normal(size=(TYPES, SIZE))[types])
    found = study_linear_probes("upos", vectors, vectors, fixed, SPLITS)
    assert found.accuracy.model.value[0] == 1
    assert found.control_accuracy.model.value[0] > 0.98
    assert abs(found.selectivity.model.value[0]) < 0.02
    assert found.by_type.value == 1


def test_probe_on_what_the_context_says_is_selective(figures):
    assert figures.accuracy.model.value[1] == 1
    assert figures.selectivity.model.low[1] > 0.3
    assert figures.layer == 1


def test_probe_on_types_is_as_good_as_the_most_frequent_tag_of_each(figures):
    assert abs(figures.accuracy.model.value[0] - figures.by_type.value) < 0.1
    assert figures.control_accuracy.model.value[0] > 0.98
    assert figures.by_type.value > figures.majority.value + 0.1


def test_company_of_the_labels_by_hand(figures, language):
    _, types, tags, _ = language
    train, test = slice(0, 200 * 8), slice(240 * 8, 300 * 8)
    usual = np.bincount(tags[train]).argmax()
    own = np.array([np.bincount(tags[train][types[train] == n]).argmax() for n in range(TYPES)])
    assert figures.majority.value == (tags[test] == usual).mean()
    assert figures.by_type.value == (tags[test] == own[types[test]]).mean()


def test_probe_on_noise_finds_nothing(figures):
    assert abs(figures.accuracy.model.value[2] - figures.majority.value) < 0.1
    assert abs(figures.accuracy.control.value - figures.majority.value).max() < 0.1
    assert figures.accuracy.distinguishable.tolist() == [True, True, False]


def test_figures_become_json(figures):
    found = json.loads(json.dumps(figures.to_json()))
    assert (found["task"], found["classes"], found["items"]) == ("upos", 3, 480)
    assert len(found["selectivity"]["control_low"]) == 3
    assert found["majority"]["low"] < found["majority"]["value"] < found["majority"]["high"]


def test_relations_are_asked_of_the_word_and_its_head(language):
    sentences, types, *_ = language
    random = np.random.default_rng(3)
    # The relation is the word's own number plus its head's: neither of them tells it alone.
    halves = random.integers(3, size=len(types))
    heads = np.roll(halves, 1)
    joint = np.eye(3)[halves] + 0.01 * random.normal(size=(len(types), 3))
    named = [
        own._replace(
            relations=(
                "root",
                *(
                    f"r{int(halves[8 * n + w] == 1) + 2 * int(heads[8 * n + w] == 1)}"
                    for w in range(1, 8)
                ),
            )
        )
        for n, own in enumerate(sentences)
    ]
    vectors = vectors_with(types, joint, random.normal(size=joint.shape))
    found = study_linear_probes("relation", vectors, vectors, named, SPLITS)
    assert found.items == 60 * 7
    assert found.accuracy.model.value[0] == 1
    assert found.accuracy.model.value[1] < 0.7


def test_tasks_leave_out_what_has_no_label(language):
    sentences, types, *_ = language
    vectors = vectors_with(types, np.zeros((len(types), 2)))
    task = make_task("xpos", vectors, sentences, SPLITS)
    assert task.words.shape == (300 * 7, 1)
    assert (task.types == types[task.words[:, 0]]).all()
    assert (task.sentences == task.words[:, 0] // 8).all()
    relation = make_task("relation", vectors, sentences, SPLITS)
    assert (relation.words[:, 0] == relation.words[:, 1] + 1).all()
    assert "root" not in relation.classes


def test_labels_that_training_lacks_are_missed_and_not_learnt(language):
    sentences, types, *_ = language
    odd = [*sentences[:-1], sentences[-1]._replace(upos=("INTJ",) * 8)]
    vectors = vectors_with(types, np.zeros((len(types), 2)))
    task = make_task("upos", vectors, odd, SPLITS)
    assert task.classes == TAGS
    assert (task.labels == -1).sum() == 8
    batches = make_label_batches(task, task.of_split(SPLITS["test"]))
    assert sum(batch.weights.sum() for batch in batches) == 480 - 8
    assert all(len(batch.labels) == 256 for batch in batches)


def test_control_labels_belong_to_types_and_are_as_frequent_as_the_real_ones(language):
    sentences, types, *_ = language
    many = np.arange(len(types))  # every word a type of its own
    vectors = vectors_with(many, np.zeros((len(types), 2)))
    task = make_task("upos", vectors, sentences, SPLITS)
    control = make_control_task(task, SPLITS["train"], 5)
    share, wanted = (np.bincount(own.labels, minlength=3) / len(types) for own in (control, task))
    np.testing.assert_allclose(share, wanted, atol=0.04)
    assert (control.labels != task.labels).mean() > 0.5
    repeated = make_control_task(task._replace(types=types), SPLITS["train"], 5)
    for own in range(TYPES):
        assert len(set(repeated.labels[types == own])) == 1


def test_sums_by_sentence(language):
    sentences, types, *_ = language
    task = make_task("upos", vectors_with(types, np.zeros((len(types), 2))), sentences, SPLITS)
    items = np.array([8, 9, 30])
    found = sum_by_sentence(task, items, np.array([[True, True, False], [False, True, True]]))
    assert found.tolist() == [[2, 1], [0, 1]]


def test_too_small_a_treebank_is_refused(language):
    sentences, types, *_ = language
    vectors = vectors_with(types, np.zeros((len(types), 2)))
    one = [own._replace(upos=("X",) * 8) for own in sentences]
    with pytest.raises(UserError, match="the same part of speech"):
        make_task("upos", vectors, one, SPLITS)
    with pytest.raises(
        UserError, match="the test part of the treebank has no word with part of speech"
    ):
        make_task("upos", vectors, sentences, {**SPLITS, "test": np.zeros(0, int)})
