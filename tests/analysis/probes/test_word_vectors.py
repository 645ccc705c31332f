import numpy as np

from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.probes import word_vectors as word_vectors_module
from bertjax.analysis.probes.treebank import Sentence, encode_treebank
from bertjax.analysis.probes.word_vectors import choose_sentences, standardize, word_vectors
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece


def test_a_word_is_the_mean_of_its_tokens_and_of_the_type_of_its_tokens(monkeypatch, config):
    tokenizer = Tokenizer(build_wordpiece([*BERT_TOKENS, "a", "##b", "##c"], True, None))
    words = [("abc", "a", "ab"), ("AB",), ("a", "abc")]
    treebank = encode_treebank(
        tokenizer,
        [Sentence("", own, np.arange(len(own)) - 1, own, own, own) for own in words],
        config.max_position_embeddings,
    )
    shape = (config.num_hidden_layers + 1, 9, config.hidden_size)
    hidden = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)

    def capture(body, texts, *, hidden, progress):
        assert hidden
        for text, own in zip(texts, states, strict=True):
            yield Captured(text, None, own[:, : len(text.token_ids)], None)

    states = hidden
    monkeypatch.setattr(word_vectors_module, "capture", capture)

    class Body:
        pass

    Body.config = config
    found = word_vectors(Body, treebank)
    assert found.starts.tolist() == [0, 3, 4, 6]
    # [CLS] a ##b ##c  a  a ##b [SEP]
    np.testing.assert_allclose(found.vectors[:, 0], hidden[0][:, 1:4].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.vectors[:, 1], hidden[0][:, 4])
    np.testing.assert_allclose(found.vectors[:, 2], hidden[0][:, 5:7].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.vectors[:, 3], hidden[1][:, 1:3].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.vectors[:, 5], hidden[2][:, 2:5].mean(axis=1), atol=1e-5)
    # The tokenizer tells no capitals.
    assert found.types.tolist() == [0, 1, 2, 2, 1, 0]


def test_standardized_vectors_have_mean_0_and_deviation_1_over_the_words_asked_for():
    vectors = np.random.default_rng(0).normal(3, 5, (2, 9, 4)).astype(np.float32)
    vectors[:, :, 3] = 7  # a dimension that does not vary
    some = np.arange(6)
    found = np.asarray(standardize(vectors, some))
    np.testing.assert_allclose(found[:, some].mean(axis=1), np.zeros((2, 4)), atol=1e-5)
    np.testing.assert_allclose(found[:, some].std(axis=1), [[1, 1, 1, 0]] * 2, rtol=1e-5, atol=1e-5)
    assert abs(found[:, 6:].mean(axis=1)[:, :3]).min() > 1e-3


def test_sentences_are_left_out_where_their_vectors_have_no_room(config):
    tokenizer = Tokenizer(build_wordpiece([*BERT_TOKENS, "a"], True, None))
    words = [("a",) * (1 + number % 3) for number in range(9)]
    treebank = encode_treebank(
        tokenizer,
        [
            Sentence(str(n), own, np.arange(len(own)) - 1, own, own, own)
            for n, own in enumerate(words)
        ],
        config.max_position_embeddings,
    )
    size = 4 * (config.num_hidden_layers + 1) * config.hidden_size * 18
    assert choose_sentences(treebank, config, size) == (treebank, ())
    some, [note] = choose_sentences(treebank, config, size - 1)
    assert len(some.sentences) == len(some.encoded) == 8
    assert "on 8 of the 9 sentences" in note
    # Of all parts of the treebank.
    some, _ = choose_sentences(treebank, config, size // 3)
    assert [sentence.place for sentence in some.sentences] == ["0", "3", "6"]
