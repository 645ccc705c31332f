"""`bertjax convert`: a model directory of a model that is stored in another way."""

import argparse

from bertjax.commands.screen import add_json, print_fields, print_json, tell
from bertjax.interop.hub import find_model
from bertjax.kernels.backends import DTYPES

SUMMARY = "a model directory, from a TensorFlow, PyTorch or Flax checkpoint"
DESCRIPTION = (
    "Makes a model directory, which transformers and bertjax load, of a model in any form: a"
    " TensorFlow checkpoint of Google's BERT or ELECTRA, pickled PyTorch (with torch installed),"
    " Flax, or safetensors in one file or several. What was written is loaded and compared with"
    " what was read, byte for byte."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--model",
        dest="source",  # not found as the models of other commands: it may be pickled
        metavar="DIR",
        required=True,
        help="a model directory; or a TensorFlow checkpoint, as its folder or its prefix"
        " (DIR/bert_model.ckpt), beside which bert_config.json and vocab.txt are; or a name on the"
        " Hugging Face hub, ORGANISATION/NAME (required)",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="the new model directory (required)"
    )
    parser.add_argument(
        "--overwrite",
        choices=["true", "false"],
        default="false",
        help="replace a model directory that is there (default: %(default)s)",
    )
    parser.add_argument(
        "--architecture",
        metavar="CLASS",
        help="class of the new model, BertForMaskedLM or BertModel for instance; what it has no"
        " place for is left out (default: that of the model)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="dtype that the numbers are stored in; auto = as they were, float32 where they had"
        " several (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Converts and prints."""
    from bertjax.interop.conversion import convert

    conversion = convert(
        find_model(options.source, pickled=True),
        options.output,
        options.architecture,
        options.dtype,
        overwrite=options.overwrite == "true",
    )
    tell(conversion.notes)
    (print_json if options.json else print_fields)(conversion.result)
