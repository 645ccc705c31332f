"""What an adaptation makes of its texts before it trains: cuts, new tokens, rows, a model to start.

All of it stands in a folder of the run directory, and is made once: the same command finds it.
"""

import collections
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bertjax.interop.checkpoint_files import fingerprint_weights
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import (
    Contents,
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.interop.model_tokenizer import has_tokenizer, load_model_tokenizer
from bertjax.interop.vocabulary_growth import grow_vocabulary
from bertjax.program.config_parser import make_config
from bertjax.program.errors import UserError
from bertjax.program.outputs import make_folder, write_json
from bertjax.program.wording import counted, with_article
from bertjax.text.new_tokens import NewToken, add_new_tokens
from bertjax.text.preparation import Report, prepare
from bertjax.text.preparation_options import PreparationOptions
from bertjax.text.readers import list_sources
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_files import CONFIG_NAME
from bertjax.text.word_counts import (
    Cuts,
    count_words,
    describe_cuts,
    describe_most_cut,
    measure_cuts,
    read_clean_texts,
)
from bertjax.training.adapt_config import AdaptConfig
from bertjax.training.run_directory import (
    ADAPTATION_NAME,
    PREPARED_NAME,
    check_kind,
)
from bertjax.training.starting_model import kind_to_continue

# In the folder of an adaptation, beside the rows: those to replay, the model with new tokens.
_REPLAY_NAME, _START_NAME = "replay", "start"
# Tokens in a row, unless the model has positions for fewer.
_MAX_LENGTH = 128
# New tokens that are named in a report.
_MOST_NAMED = 10


class Texts(NamedTuple):
    """The texts of an adaptation, and how they are read.

    Attributes:
        new: of the domain.
        replay: general ones; None where there are none.
    """

    new: PreparationOptions
    replay: PreparationOptions | None

    def by_name(self) -> dict[str, PreparationOptions]:
        """Returns those that there are, by what tables call them."""
        return {"new text": self.new} | ({"replay": self.replay} if self.replay else {})


class Made(NamedTuple):
    """What is made before training.

    Attributes:
        data: the rows of the new text.
        replay: those of the replay; None where there is none.
        init: the model to begin with.
        record: what was found out, and made, of what.
    """

    data: Path
    replay: Path | None
    init: Path
    record: Mapping[str, Any]


def prepare_adaptation(
    config: AdaptConfig,
    run: Path,
    workers: int,
    say: Callable[[str], None],
    report: Report,
) -> Made:
    """Makes rows, tokenizer and model of an adaptation, or finds them where they were made.

    Args:
        config: of the adaptation.
        run: the run directory.
        workers: processes that prepare texts.
        say: is called with what is to be known.
        report: see `prepare`.

    Raises:
        UserError: the model or the texts are not fit for it, or the run was begun with others.
    """
    model = find_model(config.model)
    contents = inspect_model_directory(model)
    tokenizer = _load_tokenizer(config.model, model, contents)
    texts = _read_options(config, contents)
    request = _request(config, model, texts)
    folder = run / ADAPTATION_NAME
    record = _find_record(run, config, request)
    if record is None:
        check_kind(run)
        make_folder(folder)
        record = _make(config, model, contents, tokenizer, texts, folder, workers, say, report)
        record = {"request": request, **record}
        write_json(_place_record(run), record)
    say(record["report"])
    for note in record["notes"]:
        say(note)
    return Made(
        folder / PREPARED_NAME,
        folder / _REPLAY_NAME if texts.replay else None,
        folder / _START_NAME if record["new_tokens"] else model,
        record,
    )


def _load_tokenizer(name: str, model: Path, contents: Contents) -> Tokenizer:
    if not has_tokenizer(model):
        raise UserError(
            f"{name}: there is no tokenizer beside the model (tokenizer.json or vocab.txt), and"
            " without it nothing says how the model reads a text; put its own there"
        )
    return load_model_tokenizer(model, contents.config)[0]


def _read_options(config: AdaptConfig, contents: Contents) -> Texts:
    """Returns how both texts are prepared, each source checked to be there."""
    usual = {
        "pairs.pairing": "nsp" if "nsp_head" in contents.parts else "none",
        "rows.max_length": min(_MAX_LENGTH, contents.config.max_length),
    }

    def read(given: Mapping[str, Any], names: Sequence[str]) -> PreparationOptions:
        named = {**usual, **given, "reader.input": list(names)}
        options = make_config(PreparationOptions, named)
        if options.rows.max_length > contents.config.max_length:
            raise UserError(
                f"preparation.max_length={options.rows.max_length} is longer than {config.model}"
                f" takes ({contents.config.length_limit}); give less, or leave it out"
            )
        return options

    of_replay = config.preparation
    if config.replay_preparation is not None:
        of_replay = config.replay_preparation
    new = read(config.preparation, config.input)
    return Texts(new, read(of_replay, config.replay) if config.replay else None)


def _request(config: AdaptConfig, model: Path, texts: Texts) -> dict[str, Any]:
    """Returns what decides everything that is made, as JSON has it.

    Raises:
        UserError: a text is both new and to be replayed.
    """
    sources = {
        what: {source.fingerprint(): source.name for source in list_sources(options.reader)}
        for what, options in texts.by_name().items()
    }
    for fingerprint, name in sources.get("replay", {}).items():
        if fingerprint in sources["new text"]:
            raise UserError(
                f"--replay {name} is among the new texts, too: nothing would be said of what is"
                " forgotten; name other texts"
            )
    options = {}
    for what, its in texts.by_name().items():
        names = ("reader", "cleaning", "duplicates", "pairs", "rows")
        options[what] = {name: dict(vars(getattr(its, name))) for name in names}
        options[what]["reader"]["input"] = list(sources[what])
    return {
        "model": fingerprint_weights(model),
        "new_tokens": config.new_tokens,
        "texts": options,
    }


def _place_record(run: Path) -> Path:
    return run / ADAPTATION_NAME / "record.json"


def _find_record(
    run: Path, config: AdaptConfig, request: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what was made before of the same request; None where nothing was."""
    path = _place_record(run)
    if not path.exists():
        if (run / "checkpoints").is_dir():
            raise UserError(f"--output {run}: holds a run that is no adaptation; name another")
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        then = record["request"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: damaged; remove it, and what it describes is made again"
        ) from None
    changed = [name for name in request if request[name] != then.get(name)]
    if changed:
        said = {"texts": "texts, or options of their preparation"}
        raise UserError(
            f"--output {run}: was begun with other"
            f" {' and other '.join(said.get(name, name) for name in changed)}; put them back, or"
            " name a new directory"
        )
    return record


def _make(
    config: AdaptConfig,
    model: Path,
    contents: Contents,
    tokenizer: Tokenizer,
    texts: Texts,
    folder: Path,
    workers: int,
    say: Callable[[str], None],
    report: Report,
) -> dict[str, Any]:
    counts: dict[str, collections.Counter[str]] = {}
    for what, options in texts.by_name().items():
        report(f"counting words: {what}", 0, None)
        counts[what] = count_words(read_clean_texts(options.reader, options.cleaning))
    cuts = {"before": {what: measure_cuts(tokenizer, its) for what, its in counts.items()}}
    notes, new = _notes_on(config, contents), list[NewToken]()
    if config.new_tokens:
        tokenizer, new = add_new_tokens(tokenizer, counts["new text"], config.new_tokens)
        cuts["after"] = {what: measure_cuts(tokenizer, its) for what, its in counts.items()}
    if len(new) < config.new_tokens:
        notes.append(
            f"new_tokens={config.new_tokens} is more than the new texts ask for: {len(new)} are"
            " added, as no others occur often enough to be learned"
        )
    start = model
    if new:
        start = folder / _START_NAME
        notes += _save_start(config, model, contents, tokenizer, new, texts, start)
    for name, options in ((PREPARED_NAME, texts.new), (_REPLAY_NAME, texts.replay)):
        if options is not None:
            _prepare(options, start, folder / name, workers, say, report)
    return {
        "vocabulary": {
            when: {what: its.describe() for what, its in those.items()}
            for when, those in cuts.items()
        },
        "new_tokens": [token._asdict() for token in new],
        "report": _describe(cuts, [tokenizer.spell(token.id) for token in new]),
        "notes": notes,
    }


def _notes_on(config: AdaptConfig, contents: Contents) -> list[str]:
    if "mlm_head" in contents.parts:
        return []
    return [
        f"{config.model}: is {with_article(contents.architecture)} without a masked-LM head, so a"
        " new one is trained with it: its first loss is that of guessing, and much of the gain is"
        " the head's"
    ]


def _prepare(
    options: PreparationOptions,
    tokenizer: Path,
    output: Path,
    workers: int,
    say: Callable[[str], None],
    report: Report,
) -> None:
    try:  # what a killed preparation left is in no record, and is made again
        prepare(options, tokenizer, output, workers, True, report, say)
    except UserError as error:
        way = " (options of `bertjax prepare` go into --preparation here)" * ("--" in str(error))
        raise UserError(f"{error}{way}") from None


def _save_start(
    config: AdaptConfig,
    model: Path,
    contents: Contents,
    tokenizer: Tokenizer,
    new: Sequence[NewToken],
    texts: Texts,
    start: Path,
) -> list[str]:
    """Saves the model with embeddings for the new tokens; returns notes on how it was read."""
    kind = kind_to_continue(model, texts.new.pairs.pairing != "none")
    loaded = load_model_directory(model, kind, initialize_missing=jax.random.key(config.seed))
    bert_config, params = grow_vocabulary(
        loaded.config, loaded.params, {token.id: token.pieces for token in new}
    )
    with tempfile.TemporaryDirectory(prefix="bertjax-") as folder:
        tokenizer.save(folder)
        if (model / CONFIG_NAME).is_file():  # what it says beside is kept
            shutil.copyfile(model / CONFIG_NAME, Path(folder) / CONFIG_NAME)
        save_model_directory(start, bert_config, params, folder, loaded.architecture)
    return loaded.notes


def _describe(cuts: Mapping[str, Mapping[str, Cuts]], new: Sequence[str]) -> str:
    """Returns the table of the cuts, the words that are cut the most, and which tokens are new."""
    columns = dict(cuts["before"])
    for what, its in cuts.get("after", {}).items():
        columns[f"{what} +{len(new):,}"] = its
    lines = [describe_cuts(columns), describe_most_cut(cuts["before"]["new text"])]
    if new:
        more = f" and {len(new) - _MOST_NAMED:,} more" if len(new) > _MOST_NAMED else ""
        named = ", ".join(new[:_MOST_NAMED])
        lines.append(f"{counted(len(new), 'new token')}: {named}{more}")
    return "\n".join(filter(None, lines))
