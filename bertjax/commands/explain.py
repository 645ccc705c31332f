"""`bertjax explain`: what each word of a text adds to the model's answer."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import utf8_text
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts, tell_readings
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.analysis.explain.explanation import Explanation

SUMMARY = "what each word of a text adds to the model's answer"

# As `analysis.attribution.METHODS`, which takes seconds to import.
METHODS = ("integrated-gradients", "gradient-x-input", "rollout", "flow", "relevance")
_BAR = 16  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_texts(
        parser,
        "a text: with a mask ([MASK], <mask>) for a masked LM; question and context for question"
        " answering",
        pairs=True,
    )
    add_model(parser, studies=True)
    parser.add_argument(
        "--answer",
        type=utf8_text,
        metavar="ANSWER",
        help="explain this word, label, tag or span (default: what the model answers)",
    )
    parser.add_argument(
        "--word",
        type=utf8_text,
        metavar="WORD",
        help="for a tagger: the word whose tag to explain, or its number from 1 (default: every"
        " word that has a tag)",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=["integrated-gradients"],
        help="one or several (default: integrated-gradients)",
    )
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="remove words in the order of the scores, and in random orders, and report how the"
        " answer's probability falls (default: no)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Explains every answer to every text."""
    from bertjax.analysis.capture.encoding import encode_stream
    from bertjax.analysis.explain.explanation import explain
    from bertjax.analysis.explain.named_targets import choose_targets

    texts = Texts(
        choose_reading(options, options.model), options.texts, options.input, pairs=True
    ).read()
    whole = open_model(options)
    most = whole.config.max_length
    asked = []
    tell_readings(whole.tokenizer, texts, masks=whole.restores_words)
    for encoded in encode_stream(whole.tokenizer, texts, most, masks=whole.restores_words):
        place, _ = texts[encoded.source]
        try:
            targets = choose_targets(whole, encoded, options.answer, options.word)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        asked += [(encoded, target) for target in targets]
    with count_on("explaining", len(asked) * len(options.method)) as progress:
        results = [
            explain(
                whole,
                *pair,
                options.method,
                faithfulness=options.faithfulness,
                progress=progress,
            )
            for pair in asked
        ]
    if options.json:
        print_json([result.to_json() for result in results])
    else:
        for number, result in enumerate(results):
            if number:
                console().print()
            _print(result)


def _print(explained: "Explanation") -> None:
    """Prints a line for each word with a bar for each method, then notes on each method."""
    from rich.table import Table
    from rich.text import Text

    out, value = console(), next(iter(explained.attributions.values())).value
    head = Text(
        " = ".join(filter(None, (explained.named.place, explained.named.answer))) or "the answer"
    )
    head.stylize("bold")
    kind = "the number" if not explained.named.has_probability else "logit"
    head.append(f"   {kind} {value:.3f}", "dim")
    if explained.probability is not None:
        head.append(f", probability {explained.probability:.2%}", "dim")
    out.print(head)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("  word")
    for method in explained.attributions:
        table.add_column(method, min_width=_BAR + 9)
    columns = [
        _bars(attribution.word_scores.tolist()) for attribution in explained.attributions.values()
    ]
    for number, word in enumerate(explained.encoded.words):
        table.add_row(Text(f"  {word}"), *(column[number] for column in columns))
    out.print(table)
    for name, attribution in explained.attributions.items():
        if attribution.baseline_value is not None and attribution.relative_gap is not None:
            out.print(
                f"  {name}: the scores lead from {attribution.baseline_value:.3f}, where every word"
                f" is masked, to {attribution.value:.3f}; gap {attribution.relative_gap:.1%}",
                style="dim",
            )
        if name in explained.faithful:
            ranges = explained.faithful[name].random_range()
            areas = ", ".join(
                f"{curve} {area:.3f} (random orders {random:.3f}, from {ranges[curve][0]:.3f}"
                f" to {ranges[curve][1]:.3f})"
                for curve, (area, random) in explained.faithful[name].areas().items()
            )
            out.print(f"  {name}: mean answer with words gone: {areas}", style="dim")


def _bars(scores: Sequence[float]) -> list[Any]:
    """Draws each score with a bar, scaled to the largest: blue for, orange against."""
    from rich.text import Text

    largest = max(map(abs, scores)) or 1.0
    return [
        Text.assemble(
            f"{score:+8.3f} ",
            ("█" * round(_BAR * abs(score) / largest), "blue" if score > 0 else "dark_orange"),
        )
        for score in scores
    ]
