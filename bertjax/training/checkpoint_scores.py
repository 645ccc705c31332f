"""Scores of a run's checkpoints: on labelled files after fine-tuning, on rows after pretraining."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertjax.architectures import MASKED_LM, PRETRAINING, find_architecture, kind_of
from bertjax.families.registry import read_config
from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.objectives.masking import Vocabulary
from bertjax.objectives.replaced_tokens import GeneratorAndDiscriminator
from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import read_task_examples, task_of_model
from bertjax.tasks.scoring import check_known_labels, single_scores
from bertjax.text.rows import open_prepared
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.evaluation import EvaluationConfig, make_evaluation
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.watching import SavedModel

# Computes the scores of a checkpoint.
Scorer = Callable[[SavedModel], dict[str, float]]


def score_on_labelled_files(
    identity: Mapping[str, Any], files: Sequence[str], reading: DataConfig, max_length: int
) -> tuple[Scorer, list[str]]:
    """Makes the scorer of a run of fine-tuning; returns also notes about the files.

    Args:
        identity: of the run.
        files: labelled files of its task.
        reading: how they are read.
        max_length: longest sequence in tokens.

    Raises:
        UserError: the files are not of the run's task.
    """
    config = read_config(identity["model"])
    architecture = find_architecture(kind_of(identity["task"]), config)
    tokenizer, notes = load_model_tokenizer(identity.get("paths", identity)["init"], config)
    task = task_of_model(config, architecture.name, reading.scheme)
    examples, more = read_task_examples(identity["task"], files, reading)
    check_known_labels(task, examples)
    inference = Inference(architecture.module(config), task, tokenizer.pad_id)

    def score(saved: SavedModel) -> dict[str, float]:
        variables = {"params": saved.params, **saved.statistics}
        predicted = predict_examples(inference, variables, task, examples, tokenizer, max_length)
        scores = task.score(examples, predicted.predictions)
        return {"loss": predicted.loss, **single_scores(scores)}

    return score, [*notes, *more]


def score_on_rows(identity: Mapping[str, Any], directories: Sequence[str]) -> Scorer:
    """Makes the scorer of a run of pretraining.

    Args:
        identity: of the run.
        directories: a prepared directory, of which the validation rows are used.

    Raises:
        UserError: there are several, or its tokenizer is not the run's.
    """
    if len(directories) != 1:
        raise UserError("--data: a pretraining run is scored on one prepared directory")
    prepared = open_prepared(directories[0])
    config = read_config(identity["model"])
    kind = identity.get("class") or identity.get("objective") or PRETRAINING
    model = find_architecture(kind, config).module(config)
    if identity.get("generator"):
        shape = read_config(identity["generator"])
        model = GeneratorAndDiscriminator(find_architecture(MASKED_LM, shape).module(shape), model)
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"{directories[0]}: its tokenizer has {tokenizer.vocab_size} tokens, the run's model"
            f" {model.config.vocab_size}; name the directory that the run is trained on"
        )
    evaluate = make_evaluation(
        EvaluationConfig(), model, Vocabulary.of(tokenizer), prepared.token_counts,
        make_mesh(MeshConfig()),
    )  # fmt: skip
    return lambda saved: evaluate(saved.params, prepared.validation, 0)[0]
