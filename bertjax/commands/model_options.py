"""How commands name their model and say how it is computed, and how they open it."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import whole_number
from bertjax.commands.screen import tell
from bertjax.kernels.backends import CHOICES, DTYPES, ENGINES, JAX, ONNXRUNTIME
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.config import BertConfig
    from bertjax.loaded import Model

# Options of how jax computes, and what they are when they are left out.
OF_JAX = {"dtype": "auto", "attention": "auto", "devices": None}


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


def add_engine(
    parser: argparse.ArgumentParser, option: str = "--engine", what: str = "the model"
) -> None:
    """Adds `--engine`.

    Args:
        parser: of the command.
        option: its name.
        what: it runs.
    """
    parser.add_argument(
        option,
        choices=ENGINES,
        default=JAX,
        help=f"what runs {what}; onnxruntime runs a directory of `bertjax export` on the CPU, of"
        " two files the one with weights in eight bits (default: %(default)s)",
    )


def runs_exported(options: argparse.Namespace) -> bool:
    """Returns whether `--engine` asks for onnxruntime; False of a command without it."""
    return getattr(options, "engine", JAX) == ONNXRUNTIME


def refuse_without_effect(
    options: argparse.Namespace, defaults: Mapping[str, Any] = OF_JAX
) -> None:
    """Raises a `UserError` where an option is given that an exported model has no use for.

    Args:
        options: of the command.
        defaults: such options, and what they are when they are left out.
    """
    for name, default in defaults.items():
        value = getattr(options, name, default)
        if value == default:
            continue
        option, variable = f"--{name.replace('_', '-')}", name.upper()
        said = option if isinstance(value, bool) else f"{option} {value}"
        is_variable = os.environ.get(variable) == str(value)
        told = f" ({variable} in the environment)" if is_variable else ""
        raise UserError(f"{said}{told} has no effect with --engine {options.engine}; leave it out")


def read_class(options: argparse.Namespace) -> "tuple[BertConfig, str]":
    """Returns the config of the model of `--model`, and its class, without its weights.

    Raises:
        UserError: see `interop.huggingface.inspect_model_directory`.
    """
    from bertjax.families.registry import load_config
    from bertjax.interop.huggingface import inspect_model_directory, read_architecture

    if runs_exported(options):
        config = load_config(options.model)
        return config, read_architecture(Path(options.model), config)
    contents = inspect_model_directory(options.model)
    return contents.config, contents.architecture


def load_by_engine(
    options: argparse.Namespace,
    name: str,
    architecture: str | None = None,
    mesh: Any = None,
) -> "Model":
    """Loads a model for what runs it.

    Args:
        options: with `--engine`, `--dtype` and `--attention` where the command has them.
        name: of the model.
        architecture: the class that is wanted; the checkpoint's own when left out.
        mesh: of `loaded.load`.

    Raises:
        UserError: see `loaded.load` and `inference.exported.load_exported`.
    """
    if runs_exported(options):
        from bertjax.inference.exported import load_exported

        exported = load_exported(name)
        return exported if architecture is None else exported.as_architecture(architecture)
    from bertjax.loaded import load

    return load(
        name,
        architecture,
        dtype=getattr(options, "dtype", "float32"),
        attention=getattr(options, "attention", "auto"),
        mesh=mesh,
    )


def open_model(options: argparse.Namespace, architecture: str | None = None) -> "Model":
    """Loads the model of `--model`; its notes go to stderr.

    Args:
        options: of `add_model`, and of `add_engine` where the command has it.
        architecture: the class that is wanted; the checkpoint's own when left out.

    Raises:
        UserError: see `load_by_engine`; or an exported model has no use for an option.
    """
    mesh = None
    if runs_exported(options):
        refuse_without_effect(options)
    else:
        from bertjax.training.sharding import choose_mesh

        mesh = choose_mesh(options.devices)
    model = load_by_engine(options, options.model, architecture, mesh)
    tell(list(model.notes))
    return model
