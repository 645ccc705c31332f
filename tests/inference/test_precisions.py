"""What is computed in bfloat16, and by each attention backend, is what float32 and the formula say.

The bounds are for whole models: bfloat16 has two to three digits.
"""

import numpy as np
import pytest

import bertjax
from bertjax.kernels.backends import AUTO, BACKENDS
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.interop.test_hub import TINY

TEXTS = ["it was a cat", "was it", "they were all of it and a cat"]
HERE = [name for name, backend in BACKENDS.items() if "cpu" in backend.platforms]
WAYS = [("bfloat16", AUTO), *((dtype, name) for dtype in ("float32", "bfloat16") for name in HERE)]
BOUNDS = {"float32": 1e-5, "bfloat16": 0.1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    labels = save(
        tmp_path_factory.mktemp("labels"), "BertForSequenceClassification", id2label=("no", "yes")
    )
    return {"tiny": TINY, "labels": labels}


def all_words(model):
    """The probability of every word at every mask."""
    filled = model.fill_mask([f"{text} [MASK]" for text in TEXTS], top_k=99)
    chances = [
        {candidate.token_id: candidate.probability for candidate in mask.candidates}
        for text in filled
        for mask in text.masks
    ]
    return np.array([[chance[token_id] for token_id in range(99)] for chance in chances])


USES = {
    "embed": ("tiny", lambda model: model.embed(TEXTS)),
    "fill_mask": ("tiny", all_words),
    "predict": ("labels", lambda model: [one.probability for one in model.predict(TEXTS)]),
    "trace": ("tiny", lambda model: [one.probs.ravel() for one in model.trace(TEXTS)]),
}


@pytest.fixture(scope="module")
def exact(folders):
    return {
        use: function(bertjax.load(folders[where], dtype="float32", attention="explicit"))
        for use, (where, function) in USES.items()
    }


@pytest.mark.parametrize(("dtype", "attention"), WAYS)
@pytest.mark.parametrize("use", USES)
def test_every_way_computes_the_same(use, dtype, attention, folders, exact):
    where, function = USES[use]
    model = bertjax.load(folders[where], dtype=dtype, attention=attention)
    if use == "trace" and attention != AUTO and not BACKENDS[attention].maps:
        with pytest.raises(UserError, match=f"attention={attention} has no probabilities to read"):
            function(model)
        return
    difference = max(
        np.abs(np.asarray(one) - np.asarray(other)).max()
        for one, other in zip(function(model), exact[use], strict=True)
    )
    assert difference <= BOUNDS[dtype]
    # Of bfloat16 it is not float32 under another name.
    assert difference > 1e-5 or dtype == "float32"
