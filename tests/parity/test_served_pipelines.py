"""What the server answers against the pipelines of transformers."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.architectures import classes_of  # noqa: E402
from bertjax.interop.huggingface import save_model_directory  # noqa: E402
from bertjax.loaded import load  # noqa: E402
from bertjax.serving.heads import classes, masks, tags  # noqa: E402
from bertjax.serving.server import Server  # noqa: E402
from bertjax.serving.settings import ServeConfig  # noqa: E402
from tests.families.tiny import tiny_config  # noqa: E402
from tests.parity.random_models import draw_parameters  # noqa: E402
from tests.serving.served_models import load_heads  # noqa: E402
from tests.text.tiny_tokenizers import TEXTS as MADE_OF  # noqa: E402
from tests.text.tiny_tokenizers import make_of  # noqa: E402

STRATEGIES = ("none", "simple", "first", "average", "max")
TEXTS = [
    "the old dog sees a red bird",
    "Running birds, unheard; cats' zebras?",
    "a 中 dog 中x sees naïve Éclairs",
    "unheard old birdcats hear.",
]
LONG = " ".join(TEXTS * 6)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = load_heads(tmp_path_factory.mktemp("heads"))
    server = Server(models, ServeConfig(max_batch_tokens=32))
    yield server
    server.close()


@pytest.fixture(scope="module")
def pipeline(server):
    def make(task, head):
        return transformers.pipeline(task, model=str(server.models[head].model.directory))

    return make


def assert_equal(ours, theirs):
    """Lists of dicts, in which numbers may differ by rounding."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for field, value in other.items():
            expected = pytest.approx(value, abs=1e-5) if field == "score" else value
            assert one[field] == expected, field


def assert_same_words(ours, theirs):
    """As `assert_equal`; `word`, as the page shows a token, is ours alone."""
    assert all(one["word"] for one in ours)
    assert_equal([{k: v for k, v in one.items() if k != "word"} for one in ours], theirs)


@pytest.mark.parametrize("ignored", [("O",), ("B-PER", "LOC"), ()])
@pytest.mark.parametrize("head", ["entities", "speech"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tags_are_those_of_the_pipeline(server, pipeline, strategy, head, ignored):
    theirs = pipeline("token-classification", head)(
        TEXTS, aggregation_strategy=strategy, ignore_labels=list(ignored)
    )
    ours = asyncio.run(tags.tag(server.models[head], TEXTS, strategy, ignored))
    assert sum(map(len, theirs)) > 5
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("stride", [0, 1, 7, 20])
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_windows_of_a_long_text_are_joined_as_the_pipeline_joins_them(
    server, pipeline, strategy, stride
):
    how = {"aggregation_strategy": strategy, "stride": stride, "ignore_labels": []}
    theirs = pipeline("token-classification", "entities")(LONG, **how)
    [ours] = asyncio.run(tags.tag(server.models["entities"], [LONG], strategy, (), stride))
    assert len(theirs) > 20
    assert_equal(ours, theirs)


@pytest.mark.parametrize(
    "how", [{}, {"top_k": 3}, {"targets": ["dog", "bird", "a"]}, {"targets": ["cat"], "top_k": 9}]
)
def test_words_for_masks_are_those_of_the_pipeline(server, pipeline, how):
    pipe = pipeline("fill-mask", "masks")
    for text in ("the [MASK] sees a bird.", "the [MASK] hears the [MASK]"):
        theirs = pipe(text, **how)
        [ours] = asyncio.run(masks.fill_masks(server.models["masks"], [text], **how))
        if isinstance(theirs[0], dict):
            ours, theirs = [ours], [theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert_same_words(one, other)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("text", [TEXTS[1], LONG])
@pytest.mark.parametrize("labels", [["cats", "old birds", "war"], ["cats"]])
def test_zero_shot_classes_are_those_of_the_pipeline(server, pipeline, text, labels, multi_label):
    theirs = pipeline("zero-shot-classification", "entailment")(
        text, labels, multi_label=multi_label
    )
    [ours] = asyncio.run(
        classes.classify_zero_shot(
            server.models["entailment"], [text], labels, multi_label=multi_label
        )
    )
    assert [one["label"] for one in ours] == theirs["labels"]
    np.testing.assert_allclose([one["score"] for one in ours], theirs["scores"], atol=1e-5)


@pytest.mark.parametrize("head", ["classes", "topics", "stars", "relevance"])
@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_classes_are_those_of_the_pipeline(server, pipeline, head, function):
    theirs = pipeline("text-classification", head)(TEXTS[0], top_k=None, function_to_apply=function)
    served = server.models[head]
    [scores] = asyncio.run(classes.classify(served, [(TEXTS[0], None)], activation=function))
    assert_equal(classes.rank(scores, served.labels), theirs)


TEXTS_OF_FAMILIES = ["The café owners believe it.", "It's unlikely: a likely story (told)."]


@pytest.fixture(scope="module", params=["roberta", "modernbert", "xlm-roberta", "albert"])
def of_family(request, tmp_path_factory):
    """A server of a family's tagger and masked LM, and transformers' pipelines of both."""
    folder, family = tmp_path_factory.mktemp(request.param), request.param
    tokenizer = make_of(family)
    tokenizer.save(folder / "tokenizer")
    models = {}
    for kind, labels in (("tokens", ("O", "B-PER", "I-PER")), ("masked-lm", ("x", "y"))):
        config = tiny_config(
            family, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, id2label=labels,
            max_position_embeddings=64 + tokenizer.pad_id + 1,
        )  # fmt: skip
        name = classes_of(config)[kind].name
        params = draw_parameters(config, name)
        save_model_directory(folder / kind, config, params, folder / "tokenizer", name)
        models[kind] = load(folder / kind)
    server = Server(models, ServeConfig(max_batch_tokens=64))
    yield server, lambda task, kind: transformers.pipeline(task, model=str(folder / kind))
    server.close()


def cut_to_letters(entities, text):
    """Without the white space that ModernBERT's tokenizer counts to the token behind it."""
    cut = []
    for one in entities:
        start, end = one["start"], one["end"]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        cut.append(one | {"start": start})
    return cut


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tags_of_a_family_are_those_of_the_pipeline(of_family, strategy):
    server, pipeline = of_family
    tokenizer, texts = server.models["tokens"].tokenizer, TEXTS_OF_FAMILIES
    if strategy not in ("none", "simple"):
        # A token that is the space before a word is a word of its own there, and here a part of it.
        words = dict.fromkeys(" ".join([*TEXTS_OF_FAMILIES, *MADE_OF]).split())
        alone = {tokenizer.library.token_to_id(space) for space in ("Ġ", "▁")}
        whole = [
            word for word in words if alone.isdisjoint(tokenizer.encode([f"x {word}"])[0].ids[1:])
        ]
        texts = [" ".join(["a", *whole[:6]]), " ".join(["a", *whole[6:12]])]
    theirs = pipeline("token-classification", "tokens")(
        texts, aggregation_strategy=strategy, ignore_labels=[]
    )
    ours = asyncio.run(tags.tag(server.models["tokens"], texts, strategy, ()))
    assert sum(map(len, theirs)) > 5
    for one, other, text in zip(ours, theirs, texts, strict=True):
        assert_equal(one, cut_to_letters(other, text))


def test_words_of_a_family_for_masks_are_those_of_the_pipeline(of_family):
    server, pipeline = of_family
    served, pipe = server.models["masked-lm"], pipeline("fill-mask", "masked-lm")
    mask = served.tokenizer.mask_token
    for text in (f"The {mask} owners", f"It is {mask} and {mask}."):
        theirs = pipe(text, top_k=40)
        [ours] = asyncio.run(masks.fill_masks(served, [text], 40))
        if isinstance(theirs[0], dict):
            ours, theirs = [ours], [theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert_same_words(one, other)
