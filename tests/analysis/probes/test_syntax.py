import numpy as np
import pytest

from bertjax.analysis.capture.maps import Captured, randomize
from bertjax.analysis.probes.syntax import (
    DIRECTIONS,
    EVERY_RELATION,
    OFFSETS,
    attends_to_heads,
    compare_syntax,
    count_syntax,
    relation_figures,
    tree_figures,
)
from bertjax.analysis.probes.treebank import Sentence, encode_treebank, split_halves
from bertjax.loaded import Model
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.parity.random_models import draw_parameters

LAYERS, HEADS = 2, 3
# Layer and head that are wired to the treebank, from the dependent and from its head.
UP, DOWN = (1, 2), (0, 1)
RELATIONS = {"NOUN": "nsubj:pass", "VERB": "obj", "PUNCT": "punct"}


@pytest.fixture(scope="module")
def tokenizer():
    words = ["aa", "bb", "cc", "dd", "##x", "."]
    return Tokenizer(build_wordpiece([*BERT_TOKENS, *words], True, None))


@pytest.fixture(scope="module")
def treebank(tokenizer):
    """Trees of chance over 2 to 9 words, some of several tokens; the last word is a full stop."""
    random = np.random.default_rng(0)
    sentences = []
    for number in range(80):
        size = random.integers(2, 10)
        order = random.permutation(size - 1)
        heads = np.full(size, -1)
        for place in range(1, size - 1):
            heads[order[place]] = order[random.integers(place)]
        heads[-1] = order[0]
        words = (*random.choice(["aa", "bbx", "ccxx", "dd"], size - 1), ".")
        upos = (*random.choice(["NOUN", "VERB"], size - 1), "PUNCT")
        relations = tuple(
            "root" if head < 0 else RELATIONS[tag] for tag, head in zip(upos, heads, strict=True)
        )
        sentences.append(Sentence(f"bank:{number}", words, heads, relations, upos, upos))
    return encode_treebank(tokenizer, sentences, 40)


def spread(word_map, encoded):
    """Attention between tokens whose merged map is `word_map`, most of it on special tokens."""
    tokens = encoded.word_ids
    sizes = np.bincount(tokens)
    probs = 0.1 * word_map[np.ix_(tokens, tokens)] / sizes[tokens]
    probs[:, [0, -1]] += 0.3
    # What is left goes to the word itself, which must not count as its choice either.
    probs[np.arange(len(tokens)), np.arange(len(tokens))] += 1 - probs.sum(axis=-1)
    return probs


def captures_of(treebank, wired, seed=0):
    random = np.random.default_rng(seed)
    for sentence, encoded in zip(treebank.sentences, treebank.encoded, strict=True):
        size = len(encoded.words)
        maps = random.uniform(0, 1, (LAYERS, HEADS, size, size))
        if wired:
            dependents = np.flatnonzero(sentence.heads >= 0)
            # Words that have no head, or no dependents, attend to [CLS].
            maps[UP][:, 0] = maps[DOWN][:, 0] = 9
            for word in dependents:
                head = sentence.heads[word]
                maps[UP][word + 1, [0, head + 1]] = 0, 9
                maps[DOWN][head + 1, [0, word + 1]] = 0, 9
        maps /= maps.sum(axis=-1, keepdims=True)
        # Between words, a head has to be right by what words get of each other, whatever their sum.
        probs = np.stack([[spread(own, encoded) for own in layer] for layer in maps])
        yield Captured(encoded, probs, None, None)


@pytest.fixture(scope="module")
def counts(treebank):
    return [
        count_syntax(captures_of(treebank, wired), treebank.sentences) for wired in (True, False)
    ]


def test_maps_of_the_fixture_are_attention(treebank):
    for captured in captures_of(treebank, True):
        np.testing.assert_allclose(captured.probs.sum(axis=-1), 1)
        assert (captured.probs[..., 0] > 0.29).all()


def test_a_head_wired_to_syntax_scores_100(treebank, counts):
    found = relation_figures(*counts, treebank.sentences, least=5)
    assert found.relations[0] == EVERY_RELATION
    assert set(found.relations) == {EVERY_RELATION, "nsubj", "obj", "punct"}
    assert found.left_out == ()
    assert (found.heads[0] == UP).all()
    assert (found.accuracy.model.value[0] == 1).all()
    assert (found.accuracy.model.low[0] == 1).all()
    assert (found.accuracy.control.value < 0.7).all()
    assert found.accuracy.distinguishable[0].all()


def test_a_head_wired_from_heads_to_dependents_scores_100_in_that_direction(treebank, counts):
    found = relation_figures(*counts, treebank.sentences, least=5)
    way = DIRECTIONS.index("head to dependent")
    assert (found.heads[way] == DOWN).all()
    assert (found.accuracy.model.value[way] == 1).all()
    assert (found.by_head[way][:, *DOWN] == 1).all()
    assert (found.by_head[1 - way][:, *DOWN] < 0.9).all()


def test_both_directions_of_a_map_by_hand():
    maps = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.1], [0.3, 0.6, 0.9]])[None, None]
    found = attends_to_heads(maps, np.array([0, 1]), np.array([1, 2]))
    assert found.shape == (2, 1, 1, 2)
    # Word 0 attends most to 1 of the others, word 1 to 2.
    assert found[0, 0, 0].tolist() == [True, True]
    # Of the others, 2 attends most to 0 (not its head 1) and 2 most to 1.
    assert found[1, 0, 0].tolist() == [False, True]


def test_words_and_offsets_are_counted_by_hand(treebank, counts):
    sentences, model = treebank.sentences, counts[0]
    choose, report = split_halves(sentences)
    found = relation_figures(*counts, sentences, least=5)
    place = found.relations.index("obj")

    def distances(half):
        return np.array(
            [
                head - word
                for number in np.flatnonzero(half)
                for word, head in enumerate(sentences[number].heads)
                if sentences[number].relations[word] == "obj"
            ]
        )

    assert found.words[place] == len(distances(report))
    chosen = max(OFFSETS, key=lambda offset: (distances(choose) == offset).sum())
    assert found.offsets[place] == chosen
    expected = (distances(report) == chosen).mean()
    np.testing.assert_allclose(found.offset_accuracy.value[place], expected)
    gain = found.accuracy.model.value - found.offset_accuracy.value
    np.testing.assert_allclose(found.gain.value, gain)
    assert (found.gain.low > 0).any()
    assert model.words[:, 0].sum() == sum(
        (own.heads >= 0).sum() - (own.heads[-1] >= 0) for own in sentences
    )
    assert found.by_head.shape == (2, 4, LAYERS, HEADS)


def test_the_head_is_chosen_on_one_half_and_measured_on_the_other(treebank, counts):
    choose, _ = split_halves(treebank.sentences)
    model = counts[0]
    # A head that is right in the half to choose on only, in all of it.
    hits = np.zeros_like(model.hits)
    hits[choose, :, :, 1, 1] = model.words[choose][:, None]
    found = relation_figures(model._replace(hits=hits), counts[1], treebank.sentences, least=5)
    assert (found.heads == (1, 1)).all()
    assert (found.accuracy.model.value == 0).all()
    attached = np.zeros_like(model.attached)
    attached[choose, 1, 0] = model.edges[choose]
    trees = tree_figures(model._replace(attached=attached), counts[1], treebank.sentences)
    assert (trees.head, trees.best.model.value) == ((1, 0), 0)


def test_the_direction_is_chosen_on_the_half_that_chooses_the_head(treebank, counts):
    choose, report = split_halves(treebank.sentences)
    model = counts[0]
    # Each direction has a head that is right in one half only.
    hits = np.zeros_like(model.hits)
    hits[choose, 1, :, 0, 0] = model.words[choose]
    hits[report, 0, :, 0, 0] = model.words[report]
    found = relation_figures(model._replace(hits=hits), counts[1], treebank.sentences, least=5)
    assert (found.directions == 1).all()
    assert (found.accuracy.model.value[0] == 1).all()  # better on the half to report, and not taken


def test_rare_relations_are_left_out_by_name(treebank, counts):
    words = counts[0].words[:, 1:].sum(axis=0)
    rarest = counts[0].relations[1 + words.argmin()]
    choose, report = split_halves(treebank.sentences)
    own = counts[0].words[:, 1 + words.argmin()]
    least = min(own[choose].sum(), own[report].sum()) + 1
    assert relation_figures(*counts, treebank.sentences, least=least).left_out == (rarest,)
    with pytest.raises(UserError, match="no relation has 9999 words in both halves"):
        relation_figures(*counts, treebank.sentences, least=9999)


def test_subtypes_are_relations_of_their_own_when_asked_for(treebank):
    found = count_syntax(captures_of(treebank, False), treebank.sentences, subtypes=True)
    assert found.relations == (EVERY_RELATION, "nsubj:pass", "obj", "punct")


def test_spanning_tree_of_a_wired_head_is_the_tree(treebank, counts):
    found = tree_figures(*counts, treebank.sentences)
    # Undirected, it does not matter which of both attends to the other.
    assert found.head in (UP, DOWN)
    assert found.best.model.value == 1
    assert found.by_head.model.value[UP] == found.by_head.model.value[DOWN] == 1
    assert (found.by_head.model.value == 1).sum() == 2
    assert found.by_head.model.value.shape == (LAYERS, HEADS)
    assert found.best.control.value < 0.7
    _, report = split_halves(treebank.sentences)
    chained = [
        abs(head - word) == 1
        for number in np.flatnonzero(report)
        for word, head in enumerate(treebank.sentences[number].heads[:-1])
        if head >= 0
    ]
    np.testing.assert_allclose(found.chain.value, np.mean(chained))


def test_figures_become_json(treebank, counts):
    import json

    relations = relation_figures(*counts, treebank.sentences, least=5).to_json()
    rows = json.loads(json.dumps(relations))["relations"]
    assert len(rows) == 8
    assert (rows[0]["direction"], rows[0]["layer"], rows[0]["head"]) == (DIRECTIONS[0], *UP)
    assert rows[0]["accuracy"]["value"] == 1
    trees = json.loads(json.dumps(tree_figures(*counts, treebank.sentences).to_json()))
    assert (trees["layer"], trees["head"]) in (UP, DOWN)
    assert trees["best"]["value"] == 1


def test_a_body_is_studied_beside_its_control(treebank, tokenizer, config):
    shape = config.__class__(
        **{
            **{name: getattr(config, name) for name in ("hidden_size", "num_attention_heads")},
            "vocab_size": tokenizer.vocab_size,
            "num_hidden_layers": 2,
            "intermediate_size": 37,
            "max_position_embeddings": 40,
        }
    )
    model = BertModel(shape, pooling=False)
    params = draw_parameters(shape, "BertModel", spread=0.02)["bert"]
    body = Model(model, params, tokenizer)
    done = []
    some = treebank.select(range(30))
    counts = compare_syntax(body, randomize(body, 7), some, progress=done.append)
    relations, trees = (one(*counts, some.sentences) for one in (relation_figures, tree_figures))
    assert sum(done) == 60
    assert relations.by_head.shape[-2:] == (2, config.num_attention_heads)
    assert (relations.accuracy.model.value < 1).any()
    assert trees.by_head.model.value.shape == (2, config.num_attention_heads)
    # The control is another body.
    assert (trees.by_head.model.value != trees.by_head.control.value).any()
