"""Adapts a pretrained model to the texts of a domain: vocabulary, pretraining, gain, forgetting.

    bertjax adapt --model bert_tiny_mlm --input texts/ --replay general/ --output runs/mine

How the model's tokenizer cuts the new texts is reported; then the model goes on with its own
objective, on new texts and a share of general ones, until the gain ends. The same command continues
a run that was stopped or killed, to the same bits. All fields of `bertjax pretrain` can be given.
"""

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from bertjax.program.config_parser import make_config
from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments, names_arguments
from bertjax.text.preparation import Report
from bertjax.text.rows import open_prepared
from bertjax.text.texts_in_memory import write_documents
from bertjax.training.adapt_config import EVALUATIONS, AdaptConfig
from bertjax.training.adapt_preparation import Made, prepare_adaptation
from bertjax.training.budget import Clock
from bertjax.training.pretrain import run_pretraining
from bertjax.training.pretrain_config import ModelConfig, PretrainConfig, PretrainingFields
from bertjax.training.progress import Reporter
from bertjax.training.replay import ReplayConfig
from bertjax.training.result import Result
from bertjax.training.sharding import read_mesh


@names_arguments
def adapt(
    model: Path | str,
    texts: Any,
    *,
    run: Path | str,
    replay: Any = None,
    mesh: Any = None,
    progress: Callable[[str], None] | None = None,
    make_development: Callable[..., Any] | None = None,
    **fields: Any,
) -> Result:
    """Adapts a pretrained model to the texts of a domain.

        result = adapt("bert_tiny_mlm", texts, run="runs/mine", replay=general, minutes=5)

    A KeyboardInterrupt between two steps (Ctrl-C in a notebook) saves the run and returns what
    there is; the same call continues from there, to the same bits.

    Args:
        model: the pretrained model: a folder, or a name on the hub.
        texts: of the domain: documents as texts; or a path, or a list of `pathlib.Path`, as
            `bertjax adapt --input` takes them.
        run: the run directory.
        replay: general texts, of the same kinds; none when left out.
        mesh: the devices: a `jax.sharding.Mesh`, or the fields of `MeshConfig`.
        progress: is called with every line that the run reports.
        make_development: see `run_pretraining`.
        fields: any field of `AdaptConfig`: in its section (`budget={"minutes": 10}`), or by its
            last part alone (`minutes=10`).

    Returns:
        The run: scores (losses in nats, rates as shares of 1), history, and the best model.

    Raises:
        UserError: an unknown field, and whatever `run_adaptation` raises.
    """
    mesh, axes = read_mesh(mesh)
    with tempfile.TemporaryDirectory(prefix="bertjax-texts-") as folder:
        given = {
            "model": os.fspath(model),
            "input": _name_texts(texts, Path(folder) / "texts.jsonl"),
            "output": run,
            "replay": [] if replay is None else _name_texts(replay, Path(folder) / "replay.jsonl"),
            **axes,
        }
        for name in given.keys() & fields.keys():
            raise UserError(f"{name} is given twice")
        config = make_config(AdaptConfig, given | fields)
        return run_adaptation(
            config, mesh=mesh, reporter=Reporter(progress), make_development=make_development
        )


def _name_texts(texts: Any, file: Path) -> list[str]:
    """Returns the names of files; texts in memory are written into one."""
    if isinstance(texts, str | os.PathLike):
        return [os.fspath(texts)]
    texts = list(texts) if isinstance(texts, Iterable) and not hasattr(texts, "keys") else texts
    if isinstance(texts, list) and texts and all(isinstance(text, os.PathLike) for text in texts):
        return [os.fspath(text) for text in texts]
    write_documents(texts, file)
    return [str(file)]


def run_adaptation(
    config: AdaptConfig,
    *,
    workers: int = 1,
    mesh: Mesh | None = None,
    reporter: Reporter | None = None,
    report: Report = lambda stage, done, total: None,
    make_development: Callable[..., Any] | None = None,
) -> Result:
    """Makes one adaptation, from texts to model directory.

    Args:
        config: of the adaptation.
        workers: processes that prepare the texts.
        mesh: the devices; as `config.mesh` says, when left out.
        reporter: reports the run.
        report: see `prepare`.
        make_development: see `run_pretraining`.

    Returns:
        What a pretraining run comes to; its scores have `domains`, what was gained on the new text
        and forgotten of the general one, and `vocabulary`.

    Raises:
        UserError: texts, model and options do not go together, or the directory holds another run.
    """
    reporter = reporter or Reporter()
    with tempfile.TemporaryDirectory(prefix="bertjax-adapt-") as elsewhere:
        run = Path(config.output)
        if config.dry_run and not (run / "checkpoints").is_dir():
            run = Path(elsewhere) / "run"  # a dry run writes nothing
        made = prepare_adaptation(config, run, workers, reporter.say, report)
        try:
            result = run_pretraining(
                _pretraining_of(config, made),
                mesh=mesh,
                reporter=reporter,
                make_development=make_development,
                origin={"program": "bertjax adapt", "model": config.model},
            )
        except UserError as error:  # which names the run directory by the option of pretraining
            raise UserError(str(error).replace("--run", "--output")) from None
    notes = [name_arguments(note) for note in made.record["notes"]]
    result = dataclasses.replace(result, notes=[*notes, *result.notes])
    if not result.scores:
        return result
    domains = compare_domains(result.history)
    if domains:
        reporter.say(describe_domains(domains))
    more = {"domains": domains, "vocabulary": made.record["vocabulary"]}
    return dataclasses.replace(result, scores={**result.scores, **more})


def _pretraining_of(config: AdaptConfig, made: Made) -> PretrainConfig:
    """Returns the config of the pretraining run that an adaptation is."""
    fields = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(PretrainingFields)
    }
    fields["budget"] = config.settled_budget
    replay = ReplayConfig(os.fspath(made.replay) if made.replay else None, config.share)
    rows = replay.rows_of_epoch(len(open_prepared(made.data).train))
    clock = Clock(config.settled_budget, rows, config.batch_size)
    if config.evaluation.every is None and not clock.in_seconds:
        every = max(1, math.ceil(clock.total / EVALUATIONS))
        fields["evaluation"] = dataclasses.replace(config.evaluation, every=every)
    return PretrainConfig(
        data=os.fspath(made.data),
        run=config.output,
        model=ModelConfig(init=os.fspath(made.init)),
        replay=replay,
        **fields,
    )


# -------------------------------------------------------------------- gain and forgetting

# What each domain is called, and its split in metrics.jsonl.
_DOMAINS = {"new": "test", "replay": "replay_test"}


def compare_domains(history: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns what the test texts of each domain say before and after; {} without a before.

    Args:
        history: the lines of metrics.jsonl.
    """
    compared = {}
    for domain, split in _DOMAINS.items():
        lines = [line for line in history if line["split"] == split]
        if len(lines) > 1 and lines[0]["step"] == 0:
            before, after = lines[0], lines[-1]
            compared[domain] = {
                "loss_before": before["mlm_loss"],
                "loss_after": after["mlm_loss"],
                "gain": before["mlm_loss"] - after["mlm_loss"],
                "accuracy_before": before["mlm_accuracy"],
                "accuracy_after": after["mlm_accuracy"],
            }
    return compared


def describe_domains(domains: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the table of gain and forgetting, in nats of the masked-LM loss and accuracy."""
    heads = ("loss before", "after", "gain", "accuracy before", "after")
    lines = ["test text".ljust(12) + "".join(head.rjust(len(head) + 3) for head in heads)]
    for domain, its in domains.items():
        cells = (
            f"{its['loss_before']:.3f}",
            f"{its['loss_after']:.3f}",
            f"{its['gain']:+.3f}",
            f"{its['accuracy_before']:.1%}",
            f"{its['accuracy_after']:.1%}",
        )
        widths = (len(head) + 3 for head in heads)
        row = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        forgotten = "  (forgotten)" if domain == "replay" and its["gain"] < 0 else ""
        lines.append(domain.ljust(12) + row + forgotten)
    return "\n".join(lines)
