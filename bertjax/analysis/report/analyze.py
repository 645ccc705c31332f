"""Takes a model apart: plans the surveys that it allows, runs them, writes the report.

plan_analysis  reads everything, and refuses what is wrong with it, before anything is measured
write_analysis measures section by section and writes the page
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bertjax
from bertjax.analysis.capture.encoding import EncodedText, encode_stream
from bertjax.analysis.heads.objective import task_objective
from bertjax.analysis.probes.treebank import encode_treebank, read_treebank
from bertjax.analysis.report import survey, survey_treebank
from bertjax.analysis.report.data import ReportData
from bertjax.analysis.report.maps import texts_with_room
from bertjax.analysis.report.pages import write_report
from bertjax.analysis.report.subject import Subject, Survey
from bertjax.analysis.report.treebank_plan import TreebankPlan, plan_treebank
from bertjax.config import BertConfig
from bertjax.inference.labelled import read_labelled
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output
from bertjax.program.stages import StageProgress, Stages, ignore_stages
from bertjax.program.wording import counted
from bertjax.tasks.data_config import DataConfig
from bertjax.text.given_texts import Text

# With fewer, percentile intervals are much too narrow.
FEW_TEXTS = 20
# In the order of the report.
SURVEYS = (*survey.SURVEYS, *survey_treebank.SURVEYS)


class Analysis(NamedTuple):
    """What is going to be measured.

    Attributes:
        subject: the model, and what it is measured on.
        surveys: the sections that it allows, each with what its progress adds up to.
        notes: what a reader must know: what was cut, left out, or proves little.
        title: of the page.
        facts: for its head.
        started: when the work began, by `time.perf_counter`.
    """

    subject: Subject
    surveys: Sequence[tuple[Survey, int]]
    notes: Sequence[str]
    title: str
    facts: Mapping[str, str | int]
    started: float


class Report(NamedTuple):
    """A report that was written.

    Attributes:
        page: the file to open in a browser.
        files: all files, the page first, then numbers.json, then the figures.
        notes: what a reader must know: what was cut, left out, or proves little.
    """

    page: Path
    files: list[Path]
    notes: list[str]

    @property
    def numbers(self) -> dict[str, Any]:
        """All figures with their intervals and controls, as numbers.json has them."""
        return json.loads(self.files[1].read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"Report({self.page}, {counted(len(self.notes), 'note')})"


def plan_analysis(
    model: Model,
    texts: Iterable[tuple[str, Text]],
    *,
    treebank: Sequence[Path | str] = (),
    labelled: Any = None,
    reading: DataConfig | None = None,
    limit: int = 200,
    shown: int = 12,
    max_length: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Analysis:
    """Decides what is measured, and reads all of it.

    Args:
        model: of any class; with a masked-LM head, or fitted to a task, there are more sections.
        texts: each a place for messages, and a text or a pair; a long text is cut into windows.
        treebank: CoNLL-U files.
        labelled: files or rows of a fine-tuned model's task: what its heads are important for.
        reading: how these are read, and the encoding of the treebank; left out, as the model was
            fitted, and UTF-8.
        limit: measure on so many texts, the first ones; 0 = all.
        shown: how many of them have their attention on the page, at most.
        max_length: of a window, in tokens; the model's positions when left out.
        seed: of the random control.
        name: of the model; its directory when left out.

    Raises:
        UserError: no text, or data that cannot be read or are not of the model's task.
    """
    started = time.perf_counter()
    config, tokenizer = model.config, model.tokenizer
    length = max_length or config.max_length
    remaining = iter(texts)
    kept = list(itertools.islice(remaining, limit or None))
    if not kept:
        raise UserError("there is no text to measure the model on")
    total = len(kept) + sum(1 for _ in remaining)
    notes = tokenizer.describe_readings(text for _, text in kept)
    encoded = list(encode_stream(tokenizer, kept, length, too_long="windows"))
    room, about_room = _choose_shown(model, encoded[:shown])
    studies = _plan_treebank(treebank, model, length, reading) if treebank else None
    notes += studies.notes if studies else ()
    subject = Subject(model, encoded, encoded[:room], seed, studies)
    if labelled is not None:
        read = read_labelled(model, labelled, reading)
        objective = task_objective(model, read.task, read.examples[: limit or None], length)
        loss = f"{read.task.name} loss"
        subject = dataclasses.replace(subject, task_objective=objective, loss=loss)
        notes += read.notes
    notes += about_room
    if len(encoded) < FEW_TEXTS:
        notes.append(
            f"measured on {counted(len(encoded), 'text')}: intervals of so few are narrower than"
            " they should be, and there is none of a single text; give"
            f" {FEW_TEXTS} or more"
        )
    surveys, left_out = _choose_surveys(subject)
    notes += left_out
    if len(kept) < total:
        notes.append(f"measured on the first {len(kept):,} of {total:,} texts (--limit)")
    name = name or str(model.directory or model.architecture)
    facts: dict[str, str | int] = {
        "model": name,
        "layers": config.num_hidden_layers,
        "heads a layer": config.num_attention_heads,
        "hidden size": config.hidden_size,
        **_describe_layers(config),
        "vocabulary": config.vocab_size,
        "texts": len(kept),
        "tokens": sum(len(text.token_ids) for text in encoded),
        "seed of the random control": seed,
        "bertjax": bertjax.__version__,
    }
    return Analysis(subject, surveys, notes, Path(name).resolve().name, facts, started)


def _describe_layers(config: BertConfig) -> dict[str, str]:
    """Describes where the model departs from BERT's layers and learned positions."""
    facts = {}
    if config.SHARES_LAYERS:
        facts["parameters"] = "the same in all layers"
    if config.rotary_bases is not None:
        bases = [f"{base:,.0f}" for base in config.rotary_bases]
        facts["positions"] = f"rotary, of base {bases[0]} (global layers), {bases[1]} (local ones)"
    if config.window is not None:
        layers = [str(layer) for layer, local in enumerate(config.local_layers) if local]
        whole = len(layers) == config.num_hidden_layers
        facts["local layers"] = (
            f"{'all' if whole else ', '.join(layers)}: a token sees {config.window} tokens to"
            " either side"
        )
    return facts


def write_analysis(
    analysis: Analysis, output: Path | str, progress: StageProgress = ignore_stages
) -> Report:
    """Measures section by section, then writes `report.html`, `numbers.json` and the figures.

    Args:
        analysis: what `plan_analysis` decided.
        output: the folder.
        progress: called for every section as it proceeds.

    Raises:
        UserError: the folder cannot be written; nothing has been measured then.
    """
    check_output(output, folder=True)
    stages = Stages(len(analysis.surveys), progress)
    parts = [ReportData("", notes=analysis.notes)]
    for section, total in analysis.surveys:
        step = stages.begin(section.name, total)
        try:
            parts.append(section.measure(analysis.subject, step))
        except UserError as error:  # the other sections are worth having without it
            parts.append(ReportData("", notes=[f"{section.name}: left out, {error}"]))
    seconds = round(time.perf_counter() - analysis.started)
    data = _join(analysis.title, {**analysis.facts, "seconds": seconds}, parts)
    files = write_report(data, output)
    return Report(files[0], files, list(data.notes))


def _choose_surveys(subject: Subject) -> tuple[list[tuple[Survey, int]], list[str]]:
    """Returns the surveys that the subject allows with their totals, and why not the others."""
    surveys, notes = [], []
    for section in SURVEYS:
        try:
            total = section.total(subject)
        except UserError as error:
            notes.append(f"{section.name}: left out, {error}")
            continue
        if total:
            surveys.append((section, total))
    return surveys, notes


def _choose_shown(model: Model, shown: Sequence[EncodedText]) -> tuple[int, list[str]]:
    """Returns of how many texts the page has room for the attention, and a note if not of all."""
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    room = texts_with_room([(layers, heads, len(text.token_ids)) for text in shown])
    if room == len(shown):
        return room, []
    return room, [
        f"the page has room for the attention of the first {room} texts, not of {len(shown)}"
        " (--shown); with a smaller --max-length it has room for more"
    ]


def _plan_treebank(
    files: Sequence[Path | str], model: Model, length: int, reading: DataConfig | None
) -> TreebankPlan:
    """Reads a treebank and decides what is measured on it."""
    reading = reading or DataConfig()
    treebank = read_treebank([str(file) for file in files], reading.encoding, reading.errors)
    encoded = encode_treebank(model.tokenizer, treebank.sentences, length)
    plan = plan_treebank(encoded, model.config)
    words = (sentence.words for sentence in treebank.sentences)
    readings = model.tokenizer.describe_readings(words, noun="sentence")
    return plan._replace(notes=(*treebank.notes, *readings, *plan.notes))


def _join(title: str, facts: Mapping[str, str | int], parts: Sequence[ReportData]) -> ReportData:
    """Joins sections into one report."""
    lists = {
        name: [item for part in parts for item in getattr(part, name)]
        for name in ReportData._fields
        if name not in ("title", "facts")
    }
    return ReportData(title, facts, **lists)
