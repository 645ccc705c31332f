"""`bertjax contexts`: where in a corpus a word is used as it is in a text."""

import argparse
from typing import TYPE_CHECKING

from bertjax.commands.arguments import seed_number, utf8_text, whole_number
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.commands.text_options import KINDS, add_columns, add_encoding, choose_reading
from bertjax.commands.texts import Texts, tell_readings
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.analysis.layers.contexts import NearestContexts

SUMMARY = "where in a corpus a word is used as it is in a text: the nearest hidden states"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "text",
        type=utf8_text,
        metavar="TEXT",
        help="a text, or a pair of texts with a tab between them; - reads it from standard input",
    )
    add_model(parser, studies=True)
    parser.add_argument(
        "--word",
        type=utf8_text,
        metavar="WORD",
        required=True,
        help="a word of the text, or its number from 1 (required)",
    )
    parser.add_argument(
        "--input",
        metavar="FILE",
        nargs="+",
        required=True,
        help=f"the corpus: {KINDS.format(pairs=', a tab between the texts of a pair')}; - reads"
        " standard input like a .txt file. An empty line or cell is passed over and counted on"
        " stderr (required)",
    )
    parser.add_argument(
        "--layer",
        metavar="L",
        type=whole_number(0),
        help="layer of the hidden states: 0 = the embeddings' output, L = the last layer's"
        " (default: the last)",
    )
    parser.add_argument(
        "--top-k",
        metavar="K",
        type=whole_number(1),
        default=10,
        help="contexts to show (default: %(default)s)",
    )
    parser.add_argument(
        "--any-word",
        action="store_true",
        help="compare with every word, not with the same one only (default: no)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="seed of the random control (default: %(default)s)",
    )
    add_columns(parser, pairs=True)
    add_encoding(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Searches with the model, then with the random control."""
    from bertjax.analysis.capture.encoding import encode_stream, find_word_number
    from bertjax.analysis.capture.maps import randomize
    from bertjax.analysis.layers.contexts import nearest_contexts
    from bertjax.architectures import BODY

    if options.text == "-" and options.input == ["-"]:
        raise UserError(
            "standard input cannot be the text and the corpus; give one of them as such"
        )
    reading = choose_reading(options, options.model)
    asked = Texts(reading, [options.text], pairs=True, other_tables=True).read()
    texts = Texts(reading, files=options.input, pairs=True).read()
    if len(asked) > 1:
        raise UserError(f"standard input: {len(asked)} texts, and one is asked for; give one line")
    body = open_model(options, BODY)
    config = body.config
    most = config.max_length
    tell_readings(body.tokenizer, [*asked, *texts])
    [query] = encode_stream(body.tokenizer, asked, most)
    word = find_word_number(query, options.word)
    corpus = list(encode_stream(body.tokenizer, texts, most, too_long="windows"))
    layer = config.num_hidden_layers if options.layer is None else options.layer
    with count_on("comparing", 2 * len(corpus)) as progress:
        nearest, control = (
            nearest_contexts(
                compared,
                query,
                word,
                corpus,
                layer=layer,
                top=options.top_k,
                same_word=not options.any_word,
                progress=progress,
            )
            for compared in (body, randomize(body, options.seed))
        )
    shared = {context.place for context in nearest.contexts} & {
        context.place for context in control.contexts
    }
    if options.json:
        print_json(
            {
                "word": query.words[word],
                "layer": layer,
                "compared": nearest.compared,
                "mean": nearest.mean,
                "deviation": nearest.deviation,
                "contexts": [
                    {
                        "text": corpus[context.place.text].source + 1,
                        "place": texts[corpus[context.place.text].source][0],
                        "left": context.left,
                        "word": context.center,
                        "right": context.right,
                        "similarity": context.similarity,
                    }
                    for context in nearest.contexts
                ],
                "random_model": {
                    "mean": control.mean,
                    "deviation": control.deviation,
                    "same_contexts": len(shared),
                },
            }
        )
    else:
        _print(nearest, control, len(shared))


def _print(nearest: "NearestContexts", control: "NearestContexts", shared: int) -> None:
    from rich.text import Text

    out = console()
    # What a line has beside the words to the left and right: the cosine, four spaces, the word.
    taken = len("0.000") + 4 + max(len(context.center) for context in nearest.contexts)
    side = max(10, (out.width - taken) // 2)
    for context in nearest.contexts:
        left, right = context.left[-side:].rjust(side), context.right[:side]
        out.print(
            Text.assemble(
                f"{context.similarity:.3f}  {left} ", (context.center, "bold"), f" {right}"
            )
        )
    out.print(
        f"cosine of {nearest.compared:,} places: {nearest.mean:.3f} ± {nearest.deviation:.3f}; in a"
        f" random model of the same shape {control.mean:.3f} ± {control.deviation:.3f}, and"
        f" {shared} of the {len(nearest.contexts)} contexts are its nearest, too",
        style="dim",
    )
