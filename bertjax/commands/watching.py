"""`bertjax evaluate --watch`: scores every new checkpoint of a run as it appears."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length
from bertjax.commands.screen import tell
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    from bertjax.training.watching import SavedModel

TABLE_NAME, PLOT_NAME = "watch.jsonl", "watch.png"

# Scores a model; what it returns is a line of the table.
Scorer = Callable[["SavedModel"], dict[str, float]]


def watch(options: argparse.Namespace) -> None:
    """Scores checkpoints until the run is finished, or is interrupted.

    The table is `watch.jsonl` in the run directory, a line a checkpoint; checkpoints that it has
    are not scored again. `watch.png` shows it.

    Raises:
        UserError: the table has scores on other data.
    """
    from bertjax.pictures import draw_table_of_lines
    from bertjax.training.metrics import read_metrics
    from bertjax.training.watching import finished_steps, is_finished, read_saved_model

    run = Path(options.watch)
    lines: list[dict[str, Any]] = read_metrics(run / TABLE_NAME)
    data = list(options.data)
    for other in (line["data"] for line in lines if line.get("data", data) != data):
        raise UserError(
            f"{run / TABLE_NAME}: has the scores on {' '.join(other)}; give --data the same, or"
            " move the table away"
        )
    score: Scorer | None = None
    shown_notes: set[str] = set()
    print(f"watching {run}; Ctrl-C ends it", file=sys.stderr)
    while True:
        over = is_finished(run)  # looked at before the checkpoints, so that none is missed
        known = {line["step"] for line in lines}
        for step in finished_steps(run):
            saved = None if step in known else read_saved_model(run, step)
            if saved is None:
                continue
            score = score or make_scorer(saved.identity, run, options)
            scores = score(saved)
            line = {"step": step, "data": data, **scores}
            lines.append(line)
            with (run / TABLE_NAME).open("a", encoding="utf-8") as table:
                table.write(to_json(line) + "\n")
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            print(to_json(line) if options.json else f"step {step}: {shown}", flush=True)
            notes = draw_table_of_lines(run / PLOT_NAME, lines, list(scores))
            if set(notes) != shown_notes:
                shown_notes = set(notes)
                tell(notes)
        if over:
            return
        time.sleep(options.interval)


def make_scorer(identity: Mapping[str, Any], run: Path, options: argparse.Namespace) -> Scorer:
    """Makes the scorer of a run: of fine-tuning on labelled files, of pretraining on rows."""
    if "task" in identity:
        return _score_task(identity, run, options)
    return _score_pretraining(identity, options)


def _score_task(identity: Mapping[str, Any], run: Path, options: argparse.Namespace) -> Scorer:
    from bertjax.architectures import ARCHITECTURES, architecture_of
    from bertjax.commands.task_model import read_data_config
    from bertjax.config import BertConfig
    from bertjax.inference.task_outputs import Inference, predict_examples
    from bertjax.interop.huggingface import load_model_tokenizer
    from bertjax.tasks.reading import read_task_examples, task_of_model
    from bertjax.tasks.scoring import check_known_labels, single_scores

    config = BertConfig.from_dict(identity["model"])
    architecture = architecture_of(identity["task"])
    tokenizer, notes_of_tokenizer = load_model_tokenizer(
        identity.get("paths", identity)["init"], config
    )
    remembered = json.loads((run / "run.json").read_text(encoding="utf-8")).get("data_format", {})
    data_config = read_data_config(options, remembered)
    task = task_of_model(config, architecture, data_config.scheme)
    examples, notes = read_task_examples(identity["task"], options.data, data_config)
    check_known_labels(task, examples)
    tell([*notes_of_tokenizer, *notes])
    inference = Inference(ARCHITECTURES[architecture].module(config), task, tokenizer.pad_id)
    length = choose_length(options, config.max_position_embeddings, identity["max_length"])

    def score(saved: "SavedModel") -> dict[str, float]:
        variables = {"params": saved.params, **saved.statistics}
        predicted = predict_examples(inference, variables, task, examples, tokenizer, length)
        scores = task.score(examples, predicted.predictions)
        return {"loss": predicted.loss, **single_scores(scores)}

    return score


def _score_pretraining(identity: Mapping[str, Any], options: argparse.Namespace) -> Scorer:
    from bertjax.config import BertConfig
    from bertjax.model.bert import BertForPreTraining
    from bertjax.objectives.masking import Vocabulary
    from bertjax.text.rows import open_prepared
    from bertjax.text.tokenizer import load_tokenizer
    from bertjax.training.evaluation import EvaluationConfig, make_evaluation
    from bertjax.training.sharding import MeshConfig, make_mesh

    if len(options.data) != 1:
        raise UserError("--data: a pretraining run is scored on one prepared directory")
    prepared = open_prepared(options.data[0])
    model = BertForPreTraining(BertConfig.from_dict(identity["model"]))
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"{options.data[0]}: its tokenizer has {tokenizer.vocab_size} tokens, the run's model"
            f" {model.config.vocab_size}; name the directory that the run is trained on"
        )
    evaluate = make_evaluation(
        EvaluationConfig(), model, Vocabulary.of(tokenizer), prepared.token_counts,
        make_mesh(MeshConfig()),
    )  # fmt: skip
    return lambda saved: evaluate(saved.params, prepared.validation, 0)[0]
