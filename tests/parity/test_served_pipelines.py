"""What the server answers against the pipelines of transformers."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.serving.heads import classes, masks, tags  # noqa: E402
from bertjax.serving.server import Server  # noqa: E402
from bertjax.serving.settings import ServeConfig  # noqa: E402
from tests.serving.served_models import load_heads  # noqa: E402

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
            assert_equal(one, other)


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
