"""Tagging: each word has a place for its tag, wherever its sentence comes from."""

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.tagged_sentences import TaggedSentence
from bertjax.tasks.tagging import Tagging
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.text.tiny_tokenizers import make_of

WORDS = ("red", "green", "##ish", "in", "paris")
TASK = Tagging(("O", "B-X", "I-X"))


@pytest.fixture(scope="module")
def tokenizer():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return Tokenizer(build_wordpiece([*specials, *WORDS], True, None))


def say(tags, unit):
    """Logits that say these tags at the first tokens of the unit's words."""
    logits = np.zeros((unit.length, len(TASK.labels)), np.float32)
    firsts = np.flatnonzero(unit.labels > -2)
    logits[firsts, [TASK.labels.index(tag) for tag in tags]] = 1
    return logits


def test_labels_stand_at_the_first_token_of_each_word(tokenizer):
    tags = ("B-X", "O", "unknown")
    sentence = TaggedSentence("f:1", ("greenish", "in", "paris"), tags, "", ())
    [unit] = TASK.encode([sentence], tokenizer, 9, training=True).units
    assert unit.labels.tolist() == [-2, 1, -2, 0, -1, -2]
    assert unit.weights.tolist() == [0, 1, 0, 1, 0, 0]


def test_words_are_read_as_within_a_text_and_in_the_frame_of_the_tokenizer():
    tokenizer = make_of("roberta")
    words = ("it", "isn't", "likely")
    sentence = TaggedSentence("f:1", words, ("O", "O", "B-X"), "", ())
    [unit] = TASK.encode([sentence], tokenizer, 30, training=True).units
    firsts = np.flatnonzero(unit.labels > -2)
    ids = unit.sequences[0].token_ids
    assert tokenizer.decode(ids) == " it isn't likely"
    assert all(tokenizer.token(id).startswith("Ġ") for id in ids[firsts])
    assert unit.labels[firsts].tolist() == [0, 0, 1]


def test_words_of_a_line_are_tagged_as_spans_of_it(tokenizer):
    line = "  greenish red\u3000in\t paris "
    examples = TASK.examples_of_lines([line, "in"])
    units = TASK.encode(examples, tokenizer, 9, training=False).units
    assert sum(unit.weights.sum() for unit in units) == 0
    outputs = [say(("B-X", "I-X", "O", "I-X"), units[0]), say(("O",), units[1])]
    first, second = TASK.decode(examples, units, outputs)
    assert first["tags"] == ["B-X", "I-X", "O", "I-X"]
    assert first["entities"] == [
        {"type": "X", "start": 2, "end": 14, "text": "greenish red"},
        {"type": "X", "start": 19, "end": 24, "text": "paris"},
    ]
    assert [line[one["start"] : one["end"]] for one in first["entities"]] == [
        one["text"] for one in first["entities"]
    ]
    assert (second["tags"], second["entities"]) == (["O"], [])


def test_long_sentence_is_tagged_in_parts_and_told_of(tokenizer):
    [example] = TASK.examples_of_lines(["red greenish in paris red"])
    units, notes = TASK.encode([example], tokenizer, 5, training=False)
    assert [unit.length for unit in units] == [5, 5]
    assert notes == ["1 of 1 sentences have more than 5 tokens and are processed in parts"]
    said = (("O", "B-X"), ("O", "B-X", "I-X"))
    outputs = [say(tags, unit) for tags, unit in zip(said, units, strict=True)]
    [prediction] = TASK.decode([example], units, outputs)
    assert prediction["tags"] == ["O", "B-X", "O", "B-X", "I-X"]


def test_word_too_long_for_a_row_is_cut_and_told_of(tokenizer):
    [example] = TASK.examples_of_lines(["greenishishish in"])
    units, notes = TASK.encode([example], tokenizer, 5, training=False)
    assert [unit.labels.tolist() for unit in units] == [[-2, -1, -2, -2, -2], [-2, -1, -2]]
    assert notes[1:] == ["cut, of more than 3 tokens: 1 word"]


def test_outcome_of_a_sentence_is_what_the_main_score_counts():
    gold = [
        TaggedSentence("f:1", ("a", "b"), ("B-X", "O"), "a b", ()),
        TaggedSentence("f:2", ("a", "b"), ("O", "O"), "a b", ()),
    ]
    said = [{"tags": ["B-X", "B-X"]}, {"tags": ["O", "O"]}]
    assert (TASK.main_score, TASK.outcome_name) == ("f1", "F1 of a sentence")
    assert TASK.outcomes(gold, said).tolist() == [2 / 3, 1]
    words = Tagging(("NOUN", "VERB"))
    gold = [TaggedSentence("f:1", ("a", "b"), ("NOUN", "VERB"), "a b", ())]
    assert (words.main_score, words.outcome_name) == ("accuracy", "accuracy of a sentence")
    assert words.outcomes(gold, [{"tags": ["NOUN", "NOUN"]}]).tolist() == [1 / 2]


@pytest.mark.parametrize(
    ("labels", "said", "gold"),
    [
        (("O", "B", "I"), ("B", "I", "O", "I"), ("B-_", "I-_", "O", "B-_")),
        (("B", "I", "O"), ("B", "I", "O", "I"), ("B-_", "I-_", "O", "B-_")),
        (("O", "S-X", "B-X", "I-X", "E-X"), ("B-X", "E-X", "O", "S-X"), ("B-X", "I-X", "O", "B-X")),
        (("O", "I-X", "B-X"), ("B-X", "I-X", "O", "I-X"), ("B-X", "I-X", "O", "B-X")),
        (("O", "X_B", "X_I"), ("X_B", "X_I", "O", "X_I"), ("B-X", "I-X", "O", "B-X")),
        (("o", "i-X"), ("i-X", "i-X", "o", "i-X"), ("B-X", "I-X", "O", "B-X")),
        (("O", "PER"), ("PER", "PER", "O", "PER"), ("B-PER", "I-PER", "O", "B-PER")),
    ],
)
def test_entities_are_understood_in_the_tags_of_any_model(tokenizer, tmp_path, labels, said, gold):
    task = Tagging(labels)
    assert task.main_score == "f1"
    [example] = task.examples_of_lines(["greenish red in paris"])
    example = example._replace(tags=gold)
    [unit] = task.encode([example], tokenizer, 9, training=True).units
    assert unit.weights.sum() == 4
    logits = np.zeros((unit.length, len(labels)), np.float32)
    logits[np.flatnonzero(unit.labels > -2), [labels.index(tag) for tag in said]] = 1
    [prediction] = task.decode([example], [unit], [logits])
    assert prediction["tags"] == list(said)
    assert [(one["start"], one["end"]) for one in prediction["entities"]] == [(0, 12), (16, 21)]
    scores = task.score([example], [prediction])
    assert (scores["f1"], list(scores["per_type"])) == (1, [gold[0][2:]])
    assert task.resampler([example], [prediction])(np.zeros(3, int))["f1"] == 1
    assert task.outcomes([example], [prediction]).tolist() == [1]


def test_gold_tags_are_written_as_the_model_names_them(tmp_path):
    task = Tagging(("O", "B", "I"))
    examples = [TaggedSentence("f:1", ("a", "b"), ("B-_", "O"), "a b", ((0, 1), (2, 3)))]
    task.write_predictions(tmp_path, examples, [{"tags": ["B", "I"]}])
    assert (tmp_path / "predictions.conll").read_text() == "a\tB\tB\nb\tO\tI\n\n"


@pytest.mark.parametrize(
    ("labels", "scheme", "score", "told"),
    [
        (("O", "PER", "LOC"), None, "f1", "O, PER, LOC, are read as IO: TYPE, O, so entities"),
        (("O", "PER", "LOC"), "none", "accuracy", "are read as none: they mark no entities"),
        (("O", "N", "V"), None, "accuracy", "are read as none: they mark no entities"),
        (("O", "N", "V"), "IO", "f1", "O, N, V, are read as IO: TYPE, O, so entities"),
        (("O", "B-X", "[CLS]"), None, "accuracy", "are read as none: they mark no entities"),
        (("NOUN", "VERB"), None, "accuracy", None),
        (("O", "B-X", "I-X"), "none", "f1", None),
    ],
)
def test_names_of_tags_that_do_not_tell_are_read_as_is_said_and_told(labels, scheme, score, told):
    task = Tagging(labels, scheme=scheme)
    assert task.main_score == score
    said = task.describe_reading()
    assert said is None if told is None else told in said


@pytest.mark.parametrize(
    ("labels", "scheme", "message"),
    [
        (
            ("O", "B-X", "I-X"),
            "none",
            "--scheme none: .*, O, B-X, I-X, are read as IOB2: B-TYPE, I",
        ),
        (("O", "B-X", "I-X"), "IOB1", "--scheme IOB1: .* read as IOB2"),
        (("O", "B-X", "I-X"), "IOB2", None),
        (("O", "PER", "LOC"), "IOB2", "--scheme IOB2: .* read as IO: TYPE, O, regardless"),
        (("O", "PER", "LOC"), "none", None),
        (("O", "N", "V"), "IO", None),
        (("O", "N", "V"), None, None),
    ],
)
def test_scheme_without_effect_on_the_names_of_tags_is_refused(labels, scheme, message):
    task = Tagging(labels, scheme=scheme)
    if message is None:
        task.check_scheme("--scheme")
        return
    with pytest.raises(UserError, match=message):
        task.check_scheme("--scheme")


def test_types_that_were_read_as_words_are_scored_as_entities():
    example = TaggedSentence("f:1", ("a", "b"), ("PER", "PER"), "a b", ((0, 1), (2, 3)))
    scores = Tagging(("O", "PER")).score([example], [{"tags": ["PER", "PER"]}])
    assert scores["per_type"]["PER"]["support"] == 1
    assert Tagging(("O", "PER")).labels_of(example) == ("PER", "PER")
    assert Tagging(("O", "B-X")).labels_of(example) == ("PER", "PER")  # none of the model's
