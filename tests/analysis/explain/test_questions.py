"""`bertjax explain`, `what-if` and `contexts`: what a model is asked by default, and by name."""

import json

import jax
import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts, find_word_number
from bertjax.analysis.explain.attribution import METHODS
from bertjax.analysis.explain.named_targets import choose_targets
from bertjax.commands import explain
from bertjax.loaded import load
from bertjax.program.errors import UserError
from tests.analysis.saved import TOKENS, WORDS, save

PAIR = "the dog sees\ta red bird hears the cat"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(architecture)`: its directory; the weights are large, so that answers differ."""
    made = {}

    def make(architecture, **fields):
        key = architecture, *fields.items()
        if key not in made:
            made[key] = save(tmp_path_factory.mktemp("model"), architecture, **fields)
        return made[key]

    return make


def run_json(bertjax_command, *arguments):
    code, out, err = bertjax_command(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def output_of(path, text):
    """The model's own output for a text without padding, and the text."""
    whole = load(path)
    [encoded] = encode_texts(whole.tokenizer, [text], 12, masks=True)
    arguments = encoded.token_ids[None], encoded.token_type_ids[None]
    return jax.jit(whole.module.apply)({"params": whole.params}, *arguments), encoded


def test_methods_are_those_of_the_library():
    assert explain.METHODS == METHODS


def test_every_mask_is_explained_by_the_likeliest_word(bertjax_command, models):
    path, text = models("BertForMaskedLM"), "the [MASK] sees a [MASK]"
    found = run_json(bertjax_command, "explain", "--model", path, text, "--faithfulness")
    output, _ = output_of(path, text)
    probability = np.asarray(jax.nn.softmax(output.logits[0]))
    assert [one["position"] for one in found] == [2, 5]
    for one in found:
        row = probability[one["position"]]
        assert one["answer"] == TOKENS[row.argmax()]
        np.testing.assert_allclose(one["probability"], row.max(), rtol=1e-4)
        [ours] = one["methods"].values()
        total = one["value"] - ours["baseline_value"] + ours["gap"]
        np.testing.assert_allclose(sum(ours["word_scores"]), total, atol=1e-5)
        assert set(ours["faithfulness"]) == {"deletion", "insertion"}
        for curve in ours["faithfulness"].values():
            low, high = curve["random_range"]
            assert low < curve["random"] < high


def test_answer_names_what_is_explained(bertjax_command, models):
    [one] = run_json(
        bertjax_command, "explain", "--model", models("BertForMaskedLM"), "the [MASK]",
        "--answer", "cat", "--method", *METHODS,
    )  # fmt: skip
    assert one["answer"] == "cat"
    assert list(one["methods"]) == list(METHODS)
    code, out, _ = bertjax_command(
        "explain", "--model", models("BertForMaskedLM"), "the [MASK]", "--answer", "cat"
    )
    assert code == 0
    assert "[MASK] = cat" in out
    assert "gap" in out


def test_classes_spans_and_numbers_are_explained(models):
    labels = {"id2label": ("O", "ANIMAL", "COLOUR")}
    for name, text, fields in [
        ("BertForSequenceClassification", "the old dog", labels),
        ("BertForNextSentencePrediction", tuple(PAIR.split("\t")), {}),
    ]:
        path = models(name, **fields)
        output, encoded = output_of(path, text)
        [one] = choose_targets(load(path), encoded)
        assert one.target.index == int(output.logits[0, 0].argmax())
    path = models("BertForQuestionAnswering")
    output, encoded = output_of(path, tuple(PAIR.split("\t")))
    start, end = choose_targets(load(path), encoded)
    logits, inside = np.asarray(output.logits[0]), range(5, 12 - 1)
    assert encoded.token_type_ids[5] == 1
    assert encoded.special[11]
    best = max(
        ((a, b) for a in inside for b in inside if a <= b),
        key=lambda pair: logits[pair[0], 0] + logits[pair[1], 1],
    )
    assert (start.target.position, end.target.position) == best
    start, end = choose_targets(load(path), encoded, answer="red Bird")
    assert (start.target.position, end.target.position) == (6, 7)
    # As SQuAD's answers are read: the tokens that overlap its characters.
    start, end = choose_targets(load(path), encoded, answer=" ed  bir ")
    assert (start.target.position, end.target.position) == (6, 7)
    for answer in ("red cow", " "):
        with pytest.raises(UserError, match="these words do not stand in the second text"):
            choose_targets(load(path), encoded, answer=answer)
    regression = models("BertForSequenceClassification", id2label=("score",))
    _, encoded = output_of(regression, "the dog")
    [one] = choose_targets(load(regression), encoded)
    assert not one.has_probability
    choice = models("BertForMultipleChoice")
    _, encoded = output_of(choice, tuple(PAIR.split("\t")))
    [one] = choose_targets(load(choice), encoded)
    assert one.target.output == "choice"


def test_tags_of_words_are_explained(models):
    path = models("BertForTokenClassification", id2label=("O", "A", "B", "C", "D"))
    output, encoded = output_of(path, "the dog sees a bird")
    best = np.asarray(output.logits[0]).argmax(axis=-1)[1:-1]
    whole = load(path)
    found = choose_targets(whole, encoded)
    assert [one.target.position - 1 for one in found] == np.flatnonzero(best).tolist()
    assert [one.target.index for one in found] == best[best > 0].tolist()
    [one] = choose_targets(whole, encoded, answer="C", word="Bird")
    assert (one.place, one.answer, one.target.position) == ("bird", "C", 5)


@pytest.mark.parametrize(
    ("architecture", "text", "more", "message"),
    [
        ("BertForMaskedLM", "the dog", [], "no [MASK]"),
        ("BertForMaskedLM", "the [MASK]", ["--answer", "a dog"], "is 2 tokens"),
        ("BertForMaskedLM", "the [MASK]", ["--word", "the"], "--word is for taggers"),
        ("BertForSequenceClassification", "the dog", ["--answer", "LABEL_2"], "did you mean"),
        ("BertForQuestionAnswering", "the dog", [], "answers to two texts"),
        ("BertForQuestionAnswering", PAIR, ["--answer", "dog"], "do not stand in the second"),
        ("BertForMultipleChoice", PAIR, ["--answer", "dog"], "leave it out"),
        ("BertForTokenClassification", "the dog", ["--answer", "LABEL_1"], "with --word"),
        ("BertForTokenClassification", "the dog", ["--word", "cow"], "1 the, 2 dog"),
        ("BertModel", "the dog", [], "the model has no head"),
    ],
)
def test_questions_that_the_model_cannot_answer(
    bertjax_command, models, architecture, text, more, message
):
    code, _, err = bertjax_command("explain", "--model", models(architecture), text, *more)
    assert code == 2
    assert message in err.replace("\n", " ")


def test_words_are_found_by_text_or_number(models):
    whole = load(models("BertForMaskedLM"))
    [encoded] = encode_texts(whole.tokenizer, ["The dog sees the cat"], 12)
    assert find_word_number(encoded, "DOG") == 2
    assert find_word_number(encoded, "4") == 4
    for name in ("the", "9", "0", "bird"):
        with pytest.raises(UserError, match="1 The, 2 dog, 3 sees, 4 the, 5 cat"):
            find_word_number(encoded, name)


def test_what_if_tells_every_other_word(bertjax_command, models):
    arguments = (
        "what-if", "--model", models("BertForMaskedLM"), "--word", "dog", "--by", "cat",
        "the dog sees a bird",
    )  # fmt: skip
    [found] = run_json(bertjax_command, *arguments)
    assert found["after"] == ["[CLS]", "the", "cat", "sees", "a", "bird", "[SEP]"]
    assert found["asked"] == [1, 3, 4, 5]
    assert len(found["log_probability_after"]) == 4
    assert np.shape(found["moved"]) == (2, 3)
    random = np.array(found["random_model"]["moved"])
    assert random.shape == (2, 3)
    assert (random != found["moved"]).all()
    code, out, _ = bertjax_command(*arguments)
    assert code == 0
    assert "dog -> cat" in out
    change = np.exp(found["log_probability_after"][0] - found["log_probability_before"][0])
    assert f"x {change:.3g}" in out
    assert f"random model of the same shape {random.min():.2f} to {random.max():.2f}" in out


def test_contexts_come_with_those_of_a_random_model(bertjax_command, models, tmp_path):
    corpus = tmp_path / "corpus.txt"
    draw = np.random.default_rng(1)
    lines = [" ".join(draw.permutation(WORDS)[:8]) for _ in range(12)]
    corpus.write_text("\n\n".join(lines))
    arguments = (
        "contexts", "--model", models("BertModel"), "--word", "dog", "the dog sees a bird",
        "--input", corpus, "--top-k", 3,
    )  # fmt: skip
    found = run_json(bertjax_command, *arguments)
    assert found["compared"] == sum("dog" in line.split() for line in lines)
    similarities = [one["similarity"] for one in found["contexts"]]
    assert similarities == sorted(similarities, reverse=True)
    assert len(similarities) == 3
    for one in found["contexts"]:
        assert lines[one["text"] - 1] == " ".join([one["left"], one["word"], one["right"]]).strip()
        assert one["place"] == f"{corpus}:{2 * one['text'] - 1}"
    assert found["random_model"]["same_contexts"] in range(4)
    code, out, _ = bertjax_command(*arguments)
    assert code == 0
    assert f"{similarities[0]:.3f}" in out
    assert "in a random model" in out
    code, _, err = bertjax_command(*arguments, "--layer", 7)
    assert code == 2
    assert "numbered from 0" in err
