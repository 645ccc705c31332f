"""`bertjax fill-mask`: the likeliest words at every mask of a text."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import whole_number
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import add_json, console, count_on, print_json, tell
from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts

if TYPE_CHECKING:
    from bertjax.inference.fill_mask import FilledText

SUMMARY = "the likeliest words at every mask of a text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_texts(
        parser, "a text with one or several of the model's masks, [MASK] or <mask>", pairs=False
    )
    add_model(parser)
    parser.add_argument(
        "--top-k",
        metavar="K",
        type=whole_number(1),
        default=5,
        help="words to show for each mask (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Prints every text with its masks filled."""
    from bertjax.architectures import MASKED_LM
    from bertjax.inference.fill_mask import fill_mask

    given = Texts(
        choose_reading(options, options.model), options.texts, options.input, pairs=False
    ).read()
    texts = [text for _, text in given]
    model = open_model(options, MASKED_LM)
    tell(model.tokenizer.describe_readings(texts, masks=True))

    with count_on("filling masks", len(texts)) as progress:
        results = fill_mask(
            model.module, model.params, model.tokenizer, texts, options.top_k, progress, model.mesh
        )
    if options.json:
        print_json([_to_json(result) for result in results])
    else:
        _print_filled(results)


def _to_json(result: "FilledText") -> dict[str, Any]:
    return {
        "text": result.text,
        "masks": [
            {
                "position": mask.position,
                "candidates": [candidate._asdict() for candidate in mask.candidates],
            }
            for mask in result.masks
        ],
    }


def _print_filled(results: Sequence["FilledText"]) -> None:
    from rich.text import Text

    out = console()
    for number, result in enumerate(results):
        if number:
            out.print()
        out.print(Text(result.text, "dim"))
        out.print(Text(result.filled, "bold"))
        for index, mask in enumerate(result.masks, start=1):
            if len(result.masks) > 1:
                out.print(Text(f"  mask {index}"))
            for rank, candidate in enumerate(mask.candidates):
                style = "green" if rank == 0 else ""
                out.print(Text(f"  {candidate.probability:7.2%}  {candidate.token}", style))
