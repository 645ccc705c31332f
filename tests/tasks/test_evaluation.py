"""How an evaluation is shown."""

import json

from bertjax.tasks.evaluation import Evaluation

FOUND = {
    "task": "classification",
    "examples": 1,
    "scores": {"loss": 0.25, "accuracy": 0.5, "confusion_matrix": [[1]], "support": 3},
    "intervals": {"accuracy": [0.4, 0.65]},
    "slice_score": "accuracy",
    "slices": {"label <b>": {"examples": 1, "mean": 1.0}},
}


def test_evaluation_is_shown_by_its_scores_and_stays_a_dict():
    shown = Evaluation(FOUND)
    figures = "loss 0.2500, accuracy 0.5000 (0.4000 to 0.6500)"
    assert repr(shown) == f"Evaluation(classification, 1 example: {figures})"
    page = shown._repr_html_()
    assert "<tr><td>accuracy</td><td>0.5000</td><td>(0.4000 to 0.6500)</td></tr>" in page
    assert "<tr><td>loss</td><td>0.2500</td><td></td></tr>" in page
    assert "<tr><td>label &lt;b&gt;</td><td>1.0000</td><td>1</td></tr>" in page
    assert Evaluation(FOUND | {"slices": {}})._repr_html_().count("<table>") == 1
    assert json.loads(json.dumps(shown)) == FOUND
