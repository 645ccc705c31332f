"""`bertjax export`: a model in a form that other programs run."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import Number
from bertjax.commands.embed import add_vector_options
from bertjax.commands.model_options import add_model
from bertjax.commands.screen import add_json, print_fields, print_json, stage_bars, tell
from bertjax.commands.task_model import add_data_options, read_data_config, refuse_label_options
from bertjax.commands.text_options import OF_TABLES, OF_TEXT_FILES, choose_reading
from bertjax.commands.texts import Texts
from bertjax.exporting.limits import FORMATS, LEAST_COSINE, MOST_CHANGED, MOST_LOST
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.exporting.quality import Gate
    from bertjax.loaded import Model

SUMMARY = "a model directory for onnxruntime and other programs, compared with the model"
DESCRIPTION = (
    "Writes a model for programs other than bertjax: as a graph of ONNX, where optimum,"
    " text-embeddings-inference and transformers.js look for it, or as a program that jax alone"
    " runs. What was written is run beside the model, and kept where both answer alike."
)

_SHARE = Number(float, least=0, most=1)
# The exit code where answers moved too far.
MOVED_EXIT_CODE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, studies=True, dtype=False, devices=False)
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="the new directory (required)"
    )
    parser.add_argument(
        "--format",
        dest="form",
        choices=FORMATS,
        default="onnx",
        help="onnx = onnx/model.onnx, float32, standard operators of opset 17; stablehlo ="
        " stablehlo/model.jax_export and weights.npz, for cpu, cuda and tpu (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        choices=["true", "false"],
        default="false",
        help="replace an exported directory that is there (default: %(default)s)",
    )
    parser.add_argument(
        "--architecture",
        metavar="CLASS",
        help="the class to export, BertModel for vectors for instance (default: that of the model)",
    )
    vectors = parser.add_argument_group(
        "vectors of texts", "Of a class without a head, which has the output sentence_embedding."
    )
    add_vector_options(vectors, "written into sentence_bert_config.json")
    _add_int8(parser.add_argument_group("weights in eight bits"))
    add_data_options(parser, file_format="--data-format")
    add_json(parser)


def _add_int8(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--int8",
        action="store_true",
        help="also write onnx/model_quantized.onnx, whose matrix products with weights are of whole"
        " numbers; it is compared with the model on --check or --data, and where answers moved too"
        f" far nothing is kept and the exit code is {MOVED_EXIT_CODE} (default: no)",
    )
    group.add_argument(
        "--check",
        metavar="FILE",
        nargs="+",
        default=[],
        help="for --int8: texts to ask both models about; of a masked LM 15 %% of the tokens are"
        " masked (default: none)",
    )
    group.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        default=[],
        help="for --int8: labelled files to score both models on (default: none)",
    )
    for name, what, default in (
        ("most-changed", "the share of answers to --check that may be others", MOST_CHANGED),
        ("least-cosine", "of the vector of any text of --check to the model's", LEAST_COSINE),
        ("most-lost", "of the main score on --data, as a share of its best value", MOST_LOST),
    ):
        group.add_argument(
            f"--{name}", metavar="SHARE", type=_SHARE, help=f"{what} (default: {default})"
        )


def run(options: argparse.Namespace) -> int:
    """Exports and prints; returns the exit code."""
    _check_options(options)
    from bertjax.exporting.export import MovedError, choose_vectors, export
    from bertjax.loaded import load

    model = load(options.model, options.architecture, dtype="float32")
    tell(model.notes)
    steps = choose_vectors(model, options.pooling, options.normalize, options.max_length)
    gate = _read_gate(options, model) if options.int8 else None
    try:
        with stage_bars() as progress:
            done = export(
                model,
                options.output,
                options.form,
                steps,
                gate=gate,
                overwrite=options.overwrite == "true",
                progress=progress,
            )
    except MovedError as error:
        _print(options, {**error.result, "failures": error.failures})
        for failure in error.failures:
            print(f"error: {failure}", file=sys.stderr)
        print(f"{options.output} was not written", file=sys.stderr)
        return MOVED_EXIT_CODE
    tell(done.notes)
    _print(options, done.result)
    return 0


def _print(options: argparse.Namespace, result: dict[str, Any]) -> None:
    (print_json if options.json else print_fields)(result)


def _check_options(options: argparse.Namespace) -> None:
    """Refuses options that have no effect, before the model is loaded."""
    if options.int8 and not (options.check or options.data):
        raise UserError(
            "--int8: what is rounded is compared with the model first; name texts with --check FILE"
            " or labelled examples with --data FILE"
        )
    for name, needs in (
        ("check", "int8"),
        ("data", "int8"),
        ("most_changed", "check"),
        ("least_cosine", "check"),
        ("most_lost", "data"),
    ):
        if getattr(options, name) not in (None, []) and not getattr(options, needs):
            raise UserError(
                f"--{name.replace('_', '-')} applies with --{needs}; give both, or leave it out"
            )
    if not options.data:
        refuse_label_options(options, "--labels", "--data")
    if options.check or options.data:
        return
    for name in (*OF_TABLES, *OF_TEXT_FILES, "format"):
        if getattr(options, name) not in (None, "utf-8", "strict"):
            option = "data-format" if name == "format" else name.replace("_", "-")
            raise UserError(
                f"--{option} applies to files of --check or --data, and none are read; leave it out"
            )


def _read_gate(options: argparse.Namespace, model: "Model") -> "Gate":
    """Reads the texts and examples that an export is measured by."""
    from bertjax.exporting.quality import Gate
    from bertjax.inference.labelled import read_labelled

    lines: list[tuple[str, str]] = []
    if options.check:
        reading = choose_reading(options, options.model, options.format)
        given = Texts(reading, files=options.check, pairs=True, other_tables=bool(options.data))
        for line in given.lines():
            cells = [cell.replace("\t", " ") for cell in line.cells]
            lines.append((line.place, line.cells[0] if line.separable else "\t".join(cells)))
        given.tell_passed_over()
        if not lines:
            raise given.no_text()
    labelled = None
    if options.data:
        labelled = read_labelled(model, options.data, read_data_config(options))
        tell(labelled.notes)
    bounds = {
        name: getattr(options, name)
        for name in ("most_changed", "least_cosine", "most_lost")
        if getattr(options, name) is not None
    }
    return Gate(lines, labelled, **bounds)
