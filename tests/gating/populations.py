"""Two models' answers as draws from a population, of which the true scores are known."""

import numpy as np

from bertjax.gating.decision import decide
from bertjax.gating.gate import read_requirements
from bertjax.gating.quantities import Answered, measure, sample_examples, spoil
from bertjax.tasks.classification import Classification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.scoring import slice_examples

TASK = Classification(("ham", "spam"))


def population(spam, *, ham, found):
    """Shares of (gold, old answer, new answer), spam = 1.

    Args:
        spam: the share of spam.
        ham, found: for each class, the shares of its examples that both answer rightly, only the
            old model, only the new one, and neither.
    """
    table = np.zeros((2, 2, 2))
    for gold, share, (both, only_old, only_new, neither) in ((0, 1 - spam, ham), (1, spam, found)):
        wrong = 1 - gold
        table[gold, gold, gold] = share * both
        table[gold, gold, wrong] = share * only_old
        table[gold, wrong, gold] = share * only_new
        table[gold, wrong, wrong] = share * neither
    assert np.isclose(table.sum(), 1)
    return table


def true_scores(table, model):
    """Accuracy and macro F1 of a model (0 = old, 1 = new) on the whole population."""
    cells = table.sum(axis=2 - model)  # gold, answer
    right, wanted, given = np.diag(cells), cells.sum(axis=1), cells.sum(axis=0)
    return {"accuracy": right.sum(), "macro_f1": (2 * right / (wanted + given)).mean()}


def predict(answers):
    """Predictions with the same confidence in each answer."""
    return [
        {
            "label": TASK.labels[answer],
            "probability": 0.9,
            "probabilities": {
                label: 0.9 if number == answer else 0.1 for number, label in enumerate(TASK.labels)
            },
        }
        for answer in answers
    ]


def judge(text, gold, old, new, resamples=500, seed=0):
    """What the gate decides of a requirement on examples with these answers."""
    examples = [TextExample(f"f:{n}", "x", None, TASK.labels[one]) for n, one in enumerate(gold)]
    slices = slice_examples(examples)
    [requirement] = read_requirements(TASK, [text], speed_texts=0)
    measured = []
    for answers in (new, old):
        answered = Answered(TASK, examples, predict(answers), slices, {})
        samples = [sample_examples(answered)]
        measured.append(measure(samples, {}, spoil(answered), resamples, seed))
    return decide(requirement, *measured)


def count_passes(text, table, examples, draws=200, seed=0):
    """How many of the draws of so many examples from the population pass."""
    random, passes = np.random.default_rng(seed), 0
    for draw in range(draws):
        cells = random.choice(8, examples, p=table.ravel())
        gold, old, new = np.unravel_index(cells, (2, 2, 2))
        passes += judge(text, gold, old, new, seed=draw).met
    return passes
