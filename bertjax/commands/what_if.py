"""`bertjax what-if`: how a masked LM reads a text with a word replaced."""

import argparse
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import seed_number, utf8_text
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts, tell_readings
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.analysis.explain.what_if import WhatIf

SUMMARY = "how a model's predictions and attention change when a word of a text is replaced"

# Heads that are printed.
_HEADS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_texts(parser, pairs=True)
    add_model(parser, "a model directory with a masked-LM head", studies=True)
    parser.add_argument(
        "--word",
        type=utf8_text,
        metavar="WORD",
        required=True,
        help="the word to replace, or its number from 1 (required)",
    )
    parser.add_argument(
        "--by",
        type=utf8_text,
        metavar="NEW",
        help="the word in its place (default: the model's mask for each token)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="seed of the random control (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Asks for every word of the text, before and after."""
    from bertjax.analysis.capture.encoding import encode_stream, find_word_number
    from bertjax.analysis.explain.what_if import what_if
    from bertjax.analysis.layers.lens import with_masked_lm

    texts = Texts(
        choose_reading(options, options.model), options.texts, options.input, pairs=True
    ).read()
    model = open_model(options)
    most = with_masked_lm(model).config.max_length
    asked = []
    tell_readings(model.tokenizer, texts, masks=True)
    for encoded in encode_stream(model.tokenizer, texts, most, masks=True):
        place, _ = texts[encoded.source]
        try:
            asked.append((encoded, find_word_number(encoded, options.word)))
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    results = []
    with count_on("asking", len(asked)) as progress:
        for encoded, word in asked:
            results.append(what_if(model, encoded, word, options.by, options.seed))
            progress(1)
    if options.json:
        print_json([_to_json(result) for result in results])
        return
    for number, result in enumerate(results):
        if number:
            console().print()
        _print(result)


def _to_json(changed: "WhatIf") -> dict[str, Any]:
    return {
        "before": list(changed.before.words),
        "after": list(changed.after.words),
        "word": changed.word,
        "asked": changed.asked.tolist(),
        "log_probability_before": changed.log_probability_before.tolist(),
        "log_probability_after": changed.log_probability_after.tolist(),
        "candidates": [
            [{"token": token, "probability": probability} for token, probability in pairs]
            for pairs in (
                zip(tokens, values, strict=True)
                for tokens, values in zip(
                    changed.candidates, changed.candidate_probability.tolist(), strict=True
                )
            )
        ],
        "moved": changed.moved.tolist(),
        "random_model": {"moved": changed.control_moved.tolist()},
    }


def _print(changed: "WhatIf") -> None:
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    out = console()
    old, new = changed.before.words[changed.word], changed.after.words[changed.word]
    out.print(Text.assemble((old, "bold"), " -> ", (new, "bold")))
    for tokens, values in zip(changed.candidates, changed.candidate_probability, strict=True):
        pairs = zip(tokens, values, strict=True)
        said = ", ".join(f"{token} {probability:.1%}" for token, probability in pairs)
        out.print(Text(f"the model would expect there: {said}", "dim"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("  each other word, masked", f"with {old}", f"with {new}", "change"):
        table.add_column(name, justify="left" if name.startswith("  ") else "right")
    rows = zip(
        changed.asked, changed.log_probability_before, changed.log_probability_after, strict=True
    )
    for number, before, after in rows:
        change = after - before
        table.add_row(
            Text(f"  {changed.before.words[number]}"),
            f"{100 * np.exp(before):.3g} %",
            f"{100 * np.exp(after):.3g} %",
            Text(f"x {np.exp(change):.3g}", "blue" if change > 0 else "dark_orange"),
        )
    out.print(table)
    heads = changed.moved.shape[1]
    order = np.argsort(-changed.moved, axis=None)[:_HEADS]
    said = ", ".join(f"{at // heads}-{at % heads} {changed.moved.flat[at]:.2f}" for at in order)
    random = changed.control_moved
    out.print(
        Text(
            f"heads whose attention moves most (layer-head, 0 to 1): {said}; in a random model of"
            f" the same shape {random.min():.2f} to {random.max():.2f}",
            "dim",
        )
    )
