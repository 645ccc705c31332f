"""How commands name their model and say how it is computed, and how they open it."""

import argparse
from typing import TYPE_CHECKING

from bertjax.commands.screen import tell

if TYPE_CHECKING:
    from bertjax.loaded import Model

# As `loaded.DTYPES` and `kernels.backends.NAMES`, which take seconds to import.
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "explicit", "xla", "cudnn", "blockwise", "splash")


def add_model(
    parser: argparse.ArgumentParser,
    what: str = "a model directory",
    *,
    required: bool = True,
    studies: bool = False,
    dtype: bool = True,
) -> None:
    """Adds `--model`, `--dtype` and `--attention`.

    Args:
        parser: of the command.
        what: the model has to be.
        required: whether there is no other option in its place.
        studies: whether the command looks at attention probabilities or at exact differences: it
            computes in float32 by default, and with the explicit attention.
        dtype: whether to add `--dtype`.
    """
    parser.add_argument(
        "--model",
        metavar="DIR",
        required=required,
        help=f"{what}, or its name on the Hugging Face hub, ORGANISATION/NAME or"
        f" ORGANISATION/NAME@REVISION{' (required)' * required}",
    )
    if dtype:
        parser.add_argument(
            "--dtype",
            choices=DTYPES,
            default="float32" if studies else "auto",
            help="dtype of the matrix products; auto = bfloat16 on GPU and TPU, float32 on CPU."
            " bfloat16 is faster where the processor has it, and its numbers have two to three"
            " digits (default: %(default)s)",
        )
    if not studies:
        parser.add_argument(
            "--attention",
            choices=ATTENTIONS,
            default="auto",
            help="backend that computes the attention (default: %(default)s)",
        )


def open_model(options: argparse.Namespace, architecture: str | None = None) -> "Model":
    """Loads the model of `--model`; its notes go to stderr.

    Args:
        options: of `add_model`.
        architecture: the class that is wanted; the checkpoint's own when left out.

    Raises:
        UserError: see `loaded.load`.
    """
    from bertjax.loaded import load

    model = load(
        options.model,
        architecture,
        dtype=getattr(options, "dtype", "float32"),
        attention=getattr(options, "attention", "auto"),
    )
    tell(list(model.notes))
    return model
