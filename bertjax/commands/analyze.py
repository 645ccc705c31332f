"""`bertjax analyze`: takes a model apart, and writes one report to explore."""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bertjax
from bertjax.commands.arguments import choose_length, seed_number, whole_number
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import Stages, add_json, console, print_json, tell
from bertjax.commands.task_model import (
    add_data_options,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.texts import (
    Texts,
    add_arguments_and_files,
    choose_reading,
    tell_readings,
)
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertjax.analysis.capture.encoding import EncodedText
    from bertjax.analysis.heads.objective import Objective
    from bertjax.analysis.report.data import ReportData
    from bertjax.analysis.report.survey_treebank import TreebankPlan
    from bertjax.loaded import Model

    Stage = tuple[str, int, Callable[[Callable[..., None]], ReportData]]

# With fewer, percentile intervals are much too narrow.
FEW_TEXTS = 20

SUMMARY = "what a model's heads and layers do, as a report to explore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, studies=True)
    add_arguments_and_files(parser, "a text", "--text", pairs=True)
    parser.add_argument(
        "--treebank",
        metavar="FILE",
        nargs="+",
        default=[],
        help="CoNLL-U files: adds heads that follow dependencies, and probes (default: none)",
    )
    parser.add_argument(
        "--labels",
        dest="labelled",
        metavar="FILE",
        nargs="+",
        default=[],
        help="labelled files of a fine-tuned model's task: which heads matter for it (default:"
        " none; a model with a masked-LM head is measured on the texts). How their columns are"
        " called is said by the options of evaluate, the names of their tags by --label-names",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="of report.html and its figures (required)"
    )
    parser.add_argument(
        "--limit",
        metavar="TEXTS",
        type=whole_number(0),
        default=200,
        help="measure on so many of the texts, the first ones; 0 = all (default: %(default)s)",
    )
    parser.add_argument(
        "--shown",
        metavar="TEXTS",
        type=whole_number(1),
        default=12,
        help="put the attention of so many into the report, or of as many as the page has room for"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(3),
        help="longest text in tokens; longer ones are cut into windows (default: the model's"
        " max_position_embeddings)",
    )
    parser.add_argument(
        "--seed", type=seed_number(), default=0, help="of the random control (default: %(default)s)"
    )
    add_data_options(parser, "--label-names")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Measures section by section, then writes the report."""
    from bertjax.program.libraries import require_libraries

    require_libraries("bertjax analyze")
    from bertjax.analysis.capture.encoding import encode_stream
    from bertjax.analysis.capture.maps import randomize
    from bertjax.analysis.layers.similarity import LEAST_TOKENS
    from bertjax.analysis.report import survey
    from bertjax.analysis.report.data import ReportData
    from bertjax.analysis.report.maps import texts_with_room
    from bertjax.analysis.report.pages import write_report
    from bertjax.analysis.report.survey_treebank import survey_probes, survey_syntax
    from bertjax.architectures import BODY

    check_output(options.output, folder=True)
    if not options.labelled:
        refuse_label_options(options, "--label-names", "--labels")
    file_format = None if options.labelled else options.format
    source = Texts(
        choose_reading(options, options.model, file_format),
        options.texts,
        options.input,
        pairs=True,
        other_tables=bool(options.labelled),
    )
    started = time.perf_counter()
    whole = open_model(options)
    body, config = whole.as_architecture(BODY.name), whole.config
    length = choose_length(options, config.max_position_embeddings, least=3)
    given = iter(source)
    kept = list(itertools.islice(given, options.limit or None))
    if not kept:
        raise source.no_text()
    total = len(kept) + sum(1 for _ in given)
    source.tell_passed_over()
    tell_readings(body.tokenizer, kept)
    texts = list(encode_stream(body.tokenizer, kept, length, too_long="windows"))
    shown = texts[: options.shown]
    # What can be wrong with a file is told before anything is measured.
    plan = _plan_treebank(options, body, length)
    objective, what, label_notes = _choose_objective(options, whole, texts, length)
    notes = [*(plan.notes if plan else ()), *label_notes]
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    room = texts_with_room([(layers, heads, len(text.token_ids)) for text in shown])
    if room < len(shown):
        notes.append(
            f"the page has room for the attention of the first {room} texts, not of {len(shown)}"
            " (--shown); with a smaller --max-length it has room for more"
        )
        shown = shown[:room]
    if len(texts) < FEW_TEXTS:
        notes.append(
            f"measured on {counted(len(texts), 'text')}: intervals of so few are narrower than they"
            f" should be, and there is none of a single one; give {FEW_TEXTS} or more"
        )
    tokens = sum(int((~text.special).sum()) for text in texts)
    compares_layers = len(texts) > 1 and tokens >= LEAST_TOKENS
    if not compares_layers:
        notes.append(
            f"likeness of the layers: left out, it needs two texts and {LEAST_TOKENS} tokens at"
            f" least, and there are {counted(len(texts), 'text')} and {counted(tokens, 'token')}"
        )
    if len(kept) < total:
        notes.append(f"measured on the first {len(kept):,} of {total:,} texts (--limit)")
    tell(notes)

    control = randomize(body, options.seed)
    # Of each stage: what it is, how far its progress counts, and what measures it.
    stages: list[Stage] = [
        (
            "attention",
            4 * len(texts) + len(shown),
            lambda progress: survey.survey_attention(body, control, texts, shown, progress),
        )
    ]
    if compares_layers:
        stages.append(
            ("layers", len(texts), lambda progress: survey.survey_layers(body, texts, progress))
        )
    if whole.restores_words:
        stages.append(
            (
                "words",
                2 * len(texts) + len(shown),
                lambda progress: survey.survey_words(whole, texts, shown, progress),
            )
        )
    if objective:
        random = randomize(whole, options.seed)
        # The curve is drawn in the order of importance and in five random ones.
        measurements = 6 * (min(survey.PRUNING_STEPS, layers * heads) + 1)
        stages.append(
            (
                "heads",
                2 * objective.examples + measurements,
                lambda progress: survey.survey_importance(
                    objective, whole.params, random.params, what, progress
                ),
            )
        )
    if plan and plan.syntax:
        stages.append(
            (
                "dependencies",
                2 * len(plan.treebank.sentences),
                lambda progress: survey_syntax(body, control, plan, progress),
            )
        )
    if plan and plan.probes:
        stages.append(
            (
                "probes",
                2 * len(plan.probed.sentences) + len(plan.probes),
                lambda progress: survey_probes(body, control, plan, progress),
            )
        )
    parts = [ReportData("", notes=notes), *_measure(stages)]

    facts = {
        "model": str(options.model),
        "layers": layers,
        "heads a layer": heads,
        "hidden size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "texts": len(kept),
        "tokens": sum(len(text.token_ids) for text in texts),
        "seed of the random control": options.seed,
        "bertjax": bertjax.__version__,
        "seconds": round(time.perf_counter() - started),
    }
    data = survey.join(Path(options.model).resolve().name, facts, parts)
    written = write_report(data, options.output)
    _tell(options, written)


def _choose_objective(
    options: argparse.Namespace, whole: "Model", texts: "list[EncodedText]", length: int
) -> "tuple[Objective | None, str, list[str]]":
    """What the attention heads are to matter for, in words too, and what there is to tell."""
    from bertjax.analysis.heads.objective import masked_language_objective, task_objective
    from bertjax.tasks.reading import read_task_examples, task_of_model
    from bertjax.tasks.scoring import check_known_labels

    if options.labelled:
        config = read_data_config(options)
        try:
            task = task_of_model(whole.config, whole.architecture, config.scheme)
        except UserError as error:
            raise UserError(f"--labels: {options.model}: {error}") from None
        examples, notes = read_task_examples(task.name, options.labelled, config)
        check_known_labels(task, examples)
        some = examples[: options.limit] if options.limit else examples
        return task_objective(whole, task, some, length), f"{task.name} loss", notes
    if whole.restores_words:
        try:
            return masked_language_objective(whole, texts, options.seed), "masked-LM loss", []
        except UserError as error:  # the rest can be measured all the same
            return None, "", [f"importance of the heads: left out, {error}"]
    return None, "", []


def _plan_treebank(
    options: argparse.Namespace, body: "Model", length: int
) -> "TreebankPlan | None":
    """What is measured on the treebank."""
    if not options.treebank:
        return None
    from bertjax.analysis.probes.treebank import encode_treebank, read_treebank
    from bertjax.analysis.report.survey_treebank import plan_treebank

    treebank = read_treebank(options.treebank, options.encoding, options.errors)
    encoded = encode_treebank(body.tokenizer, treebank.sentences, length)
    plan = plan_treebank(encoded, body.config)
    words = (sentence.words for sentence in treebank.sentences)
    read = body.tokenizer.describe_readings(words, noun="sentence")
    return plan._replace(notes=(*treebank.notes, *read, *plan.notes))


def _measure(stages: "Sequence[Stage]") -> "Iterator[ReportData]":
    """Each stage; a note in place of one for which the data turn out to be too few."""
    from bertjax.analysis.report.data import ReportData

    bars = Stages(len(stages))
    for what, total, measure in stages:
        try:
            with bars.count_on(what, total) as progress:
                part = measure(progress)
        except UserError as error:  # what was measured before is not lost for it
            note = f"{what}: left out, {error}"
            print(note, file=sys.stderr)
            part = ReportData("", notes=[note])
        yield part


def _tell(options: argparse.Namespace, written: list[Path]) -> None:
    page = Path(options.output) / "report.html"
    if options.json:
        numbers = json.loads((Path(options.output) / "numbers.json").read_text(encoding="utf-8"))
        print_json(numbers)
        return
    out = console()
    out.print(f"report     {page} ({page.stat().st_size / 1e6:.1f} MB)")
    out.print(f"numbers    {Path(options.output) / 'numbers.json'}")
    out.print(f"figures    {len(written) - 2} files in {Path(options.output) / 'figures'}")
