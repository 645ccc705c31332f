"""Nearest contexts: by cosine, of the same word, streamed, with what is usual beside it."""

import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.layers.contexts import Place, find_word, nearest_contexts
from bertjax.program.errors import UserError
from tests.analysis.tiny_bodies import make_body

CORPUS = [
    "the cats sat on a mat.",
    "a dog saw the Cats, the big cats",
    "un dogs saw a mat",
    "cats sat on the cats",
    "the cats sat.",
]


@pytest.fixture(scope="module")
def body():
    return make_body()


@pytest.fixture(scope="module")
def texts(body):
    return encode_texts(body.tokenizer, CORPUS, 48)


def mean_vector(body, text, word, layer):
    [captured] = capture(body, [text], hidden=True)
    return captured.hidden[layer, text.word_ids == word].mean(axis=0)


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_word_is_found_in_whatever_case(texts):
    assert find_word(texts, "CATS") == [
        Place(0, 2), Place(1, 5), Place(1, 9), Place(3, 1), Place(3, 5), Place(4, 2)
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'catz' does not occur in 5 .* near to it are cats"):
        find_word(texts, "catz")
    with pytest.raises(UserError, match="does not occur"):
        find_word(texts, "[CLS]")


@pytest.mark.parametrize("layer", [0, 2])
def test_contexts_are_ranked_by_the_cosine_of_the_words(body, texts, layer):
    found = nearest_contexts(body, texts[0], 2, texts, layer=layer, top=3)
    target = mean_vector(body, texts[0], 2, layer)
    expected = {
        place: cosine(target, mean_vector(body, texts[place.text], place.word, layer))
        for place in find_word(texts, "cats")
        if place.text != 0
    }
    assert found.compared == 5
    best = sorted(expected, key=expected.get, reverse=True)[:3]
    assert [context.place for context in found.contexts] == best
    for context in found.contexts:
        assert context.similarity == pytest.approx(expected[context.place], abs=1e-5)
    values = np.array(list(expected.values()))
    assert found.mean == pytest.approx(values.mean(), abs=1e-5)
    assert found.deviation == pytest.approx(values.std(), abs=1e-4)


def test_words_around_are_shown(body, texts):
    found = nearest_contexts(body, texts[4], 2, texts, layer=2, top=9, window=2)
    [context] = [one for one in found.contexts if one.place == Place(1, 5)]
    assert (context.left, context.center, context.right) == ("saw the", "Cats", ", the")
    [first] = [one for one in found.contexts if one.place == Place(3, 1)]
    assert first.left == ""


def test_every_word_is_compared_on_request(body, texts):
    found = nearest_contexts(body, texts[0], 2, texts, layer=1, same_word=False, top=100)
    words = sum((~text.special_words).sum() for text in texts[1:])
    assert found.compared == len(found.contexts) == words
    assert any(context.center == "mat" for context in found.contexts)
    assert not any(context.center in ("[CLS]", "[SEP]") for context in found.contexts)
    order = [context.similarity for context in found.contexts]
    assert order == sorted(order, reverse=True)


def test_mistakes_are_told(body, texts):
    with pytest.raises(UserError, match="layer 3: hidden states are numbered"):
        nearest_contexts(body, texts[0], 2, texts, layer=3)
    with pytest.raises(UserError, match="words are numbered 1 to 7"):
        nearest_contexts(body, texts[0], 0, texts, layer=1)
    with pytest.raises(UserError, match="no other text"):
        nearest_contexts(body, texts[0], 2, texts[:1], layer=1, same_word=False)
