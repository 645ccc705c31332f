"""Classes of texts and pairs, relevance, and classes that a model of entailment never saw."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from bertjax.config import BertConfig
from bertjax.serving.heads.vectors import compare
from bertjax.serving.problems import BACKEND, VALIDATION, RefusedError
from bertjax.serving.served import AS_CONFIGURED, Cut, Input, Served
from bertjax.tasks.task import softmax

Activation = Literal["sigmoid", "softmax", "none"]
TEMPLATE = "This example is {}."


def activation_of(config: BertConfig) -> Activation:
    """Returns what makes scores of a model's logits.

    Source: `transformers.TextClassificationPipeline.postprocess`.
    """
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def activate(logits: Float[np.ndarray, " C"], activation: Activation) -> Float[np.ndarray, " C"]:
    """Returns scores, float64."""
    logits = logits.astype(np.float64)
    if activation == "none":
        return logits
    return softmax(logits) if activation == "softmax" else 1 / (1 + np.exp(-logits))


async def classify(
    served: Served,
    inputs: Sequence[Input],
    cut: Cut = AS_CONFIGURED,
    activation: Activation | None = None,
) -> list[Float[np.ndarray, " C"]]:
    """Returns the score of every class for each text or pair."""
    activation = activation or activation_of(served.model.config)
    return [activate(one, activation) for one in await served.run_texts("class", inputs, cut)]


def rank(
    scores: Float[np.ndarray, " C"], labels: Sequence[str], top_k: int | None = None
) -> list[dict[str, object]]:
    """Returns the classes with their scores, the highest first."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[place], "score": float(scores[place])} for place in order]


async def judge_relevance(
    served: Served,
    pairs: Sequence[tuple[str, str]],
    cut: Cut = AS_CONFIGURED,
    *,
    label: str | None = None,
    activation: Activation | None = None,
) -> list[float]:
    """Returns how relevant the second text of each pair is to the first.

    A classifier of one output scores pairs; of several, its class `label` is the score. Any other
    model has the cosine of both vectors.

    Raises:
        RefusedError: the model has several outputs and `label` is none of them.
    """
    if "class" not in served.programs and "vector" in served.programs:
        return await compare(served, pairs, cut)
    served.check_has("class", "vector")
    labels = served.labels
    if len(labels) > 1 and label not in labels:
        told = "is missing" if label is None else f"{label!r} is none of them"
        raise RefusedError(
            BACKEND if label is None else VALIDATION,
            f"the model {served.name} is not a re-ranker model: it has {len(labels)} outputs,"
            f" {', '.join(labels)}, and the field `label`, which names the one whose score is"
            f" the relevance, {told}",
        )
    place = labels.index(label) if label in labels else 0
    scores = await classify(served, list(pairs), cut, activation)
    return [float(one[place]) for one in scores]


async def classify_zero_shot(
    served: Served,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    multi_label: bool = False,
) -> list[list[dict[str, object]]]:
    """Returns for each text the labels with their scores, the highest first.

    The model says whether the text entails the template with the label in the place of {}.

    Args:
        served: a model of entailment, with a label that begins with "entail".
        texts: any number.
        labels: at least one.
        template: has {}.
        multi_label: every label is judged by itself: entailment against contradiction.

    Raises:
        RefusedError: the model is none of entailment, or the template has no {}.

    Source: Yin et al. 2019; `transformers.ZeroShotClassificationPipeline`.
    """
    served.check_has("class")
    entailment, contradiction = _entailment(served)
    if "{}" not in template:
        raise RefusedError(VALIDATION, "hypothesis_template must have {} where the label goes")
    pairs = [(text, template.replace("{}", label)) for text in texts for label in labels]
    logits = np.stack(await served.run_texts("class", pairs, Cut(only_first=True)))
    logits = logits.reshape(len(texts), len(labels), -1)
    if multi_label or len(labels) == 1:
        if contradiction is None:
            raise RefusedError(
                BACKEND,
                f"the model {served.name} has no label that begins with contra"
                f" ({', '.join(served.labels)}), so labels cannot be judged one by one; send"
                ' "multi_label": false and several labels',
            )
        scores = softmax(logits[..., [contradiction, entailment]])[..., 1]
    else:
        scores = softmax(logits[..., entailment])
    return [rank(one, labels) for one in scores]


def _entailment(served: Served) -> tuple[int, int | None]:
    """Returns the numbers of the labels of entailment and contradiction."""
    names = [label.lower() for label in served.labels]
    entailment = next((i for i, name in enumerate(names) if name.startswith("entail")), None)
    if entailment is None:
        raise RefusedError(
            BACKEND,
            f"the model {served.name} has no label that begins with entail"
            f" ({', '.join(served.labels)}): zero-shot classification needs a model of"
            " entailment; name its label in id2label of config.json, or serve one fitted to"
            " MNLI",
        )
    if len(names) == 2:
        return entailment, 1 - entailment
    return entailment, next((i for i, name in enumerate(names) if name.startswith("contra")), None)
