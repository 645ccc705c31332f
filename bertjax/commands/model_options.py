"""How commands name their model and say how it is computed, and how they open it."""

import argparse
from typing import TYPE_CHECKING

from bertjax.commands.arguments import whole_number
from bertjax.commands.screen import tell
from bertjax.kernels.backends import CHOICES, DTYPES
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.loaded import Model


def add_model(
    parser: argparse.ArgumentParser,
    what: str = "a model directory",
    *,
    required: bool = True,
    studies: bool = False,
    dtype: bool = True,
    devices: bool = True,
) -> None:
    """Adds `--model`, `--dtype`, `--attention` and `--devices`.

    Args:
        parser: of the command.
        what: the model has to be.
        required: whether there is no other option in its place.
        studies: whether the command looks at attention probabilities or at exact differences: it
            computes in float32 by default, and with the explicit attention.
        dtype: whether to add `--dtype`.
        devices: whether to add `--devices`.
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
            choices=CHOICES,
            default="auto",
            help="backend that computes the attention (default: %(default)s)",
        )
    if devices:
        parser.add_argument(
            "--devices",
            metavar="N",
            type=whole_number(1),
            help="how many GPUs or TPUs of this machine share the texts out, each with the whole"
            " model (default: all; of CPU devices one)",
        )


ENGINES = ("jax", "onnxruntime")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds `--engine`."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="jax",
        help="what runs the model; onnxruntime runs a directory of `bertjax export` on the CPU, of"
        " two files the one with weights in eight bits (default: %(default)s)",
    )


def runs_exported(options: argparse.Namespace) -> bool:
    """Returns whether `--engine` asks for onnxruntime.

    Raises:
        UserError: it does, and an option is given that is of jax.
    """
    if getattr(options, "engine", "jax") == "jax":
        return False
    for name, default in (("dtype", "auto"), ("attention", "auto"), ("devices", None)):
        if getattr(options, name) != default:
            raise UserError(
                f"--{name} {getattr(options, name)} has no effect with --engine"
                f" {options.engine}; leave it out"
            )
    return True


def open_model(options: argparse.Namespace, architecture: str | None = None) -> "Model":
    """Loads the model of `--model`; its notes go to stderr.

    Args:
        options: of `add_model`, and of `add_engine` where the command has it.
        architecture: the class that is wanted; the checkpoint's own when left out.

    Raises:
        UserError: see `loaded.load`.
    """
    if runs_exported(options):
        from bertjax.inference.exported import load_exported

        model = load_exported(options.model)
        tell(model.notes)
        return model if architecture is None else model.as_architecture(architecture)
    from bertjax.loaded import load
    from bertjax.training.sharding import choose_mesh

    model = load(
        options.model,
        architecture,
        dtype=getattr(options, "dtype", "float32"),
        attention=getattr(options, "attention", "auto"),
        mesh=choose_mesh(options.devices),
    )
    tell(list(model.notes))
    return model
