"""The step that the tests of planning compile: AdamW, as a run has it."""

from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.steps import make_train_step


def objective_of(model, masking, vocabulary):
    return PretrainingObjective(model, masking, vocabulary, seed=0)


def make_step(model, masking, vocabulary):
    objective = objective_of(model, masking, vocabulary)
    optimizer = make_optimizer(OptimizerConfig())
    return make_train_step(objective, optimizer, lambda clock: 1e-3 * clock, seed=0, clip_norm=1.0)
