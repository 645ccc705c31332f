"""Tagged sentences from records: each has a list of tokens and a list of their tags."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bertjax.program.errors import UserError
from bertjax.tasks.tagged_sentences import PlacedSentence, TaggedConfig, place_tokens
from bertjax.text.record_config import RecordConfig, shown
from bertjax.text.records import read_records, read_whole_records
from bertjax.text.sources import Source

# The usual names of tokens and tags in records.
TOKENS = ("tokens", "words")
TAGS = ("ner_tags", "pos_tags", "tags", "labels")


def read_tagged_records(
    source: Source, config: TaggedConfig, labelled: bool
) -> Iterator[PlacedSentence]:
    """Reads the sentences of a file of records, in order, with their tags as in the file.

    Args:
        source: any kind that `read_records` accepts.
        config: how it is read.
        labelled: False: tags are not read.

    Raises:
        UserError: a field is missing, has two roles or none; the tokens are not a list, or the tags
            not as many; or a tag's number has no name among the labels.
    """
    record_config = RecordConfig(
        encoding=config.encoding, errors=config.errors, format=config.format
    )
    first_record = next(read_records(source, record_config), None)
    if first_record is None:
        return
    present = list(first_record.values)
    options = {name: config.option(name) for name in ("token_column", "tag_column")}
    token = _field(source.name, config.token_column, present, TOKENS, options["token_column"])
    fields = {token: options["token_column"]}
    tag = None
    if labelled:
        tag = _field(source.name, config.tag_column, present, TAGS, options["tag_column"])
        fields[tag] = options["tag_column"]
    if "text" in present:
        fields.setdefault("text", options["token_column"])
    for place, values in read_whole_records(source, record_config, fields):
        tokens = _tokens(place, token, values[token])
        tags = None if tag is None else _tags(place, tag, values[tag], tokens, config)
        text = values.get("text")
        sentence = place_tokens(place, tokens, tags, text if isinstance(text, str) else None)
        yield PlacedSentence(sentence._replace(record=values), [place] * len(tokens))


def _field(
    file: str, chosen: int | str | None, present: list[str], known: tuple[str, ...], option: str
) -> str:
    if chosen is not None:
        return str(chosen)
    columns = [field for field in known if field in present]
    if len(columns) != 1:
        kind = "token" if known is TOKENS else "tag"
        several = f"{' or '.join(columns)} may be it" if columns else f"none is called {known[0]}"
        raise UserError(
            f"{file}: which field holds the {kind}s? There are: "
            f"{', '.join(map(repr, present[:20]))}; {several}; choose with {option}"
        )
    return columns[0]


def _tokens(place: str, field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{place}: {field!r} is {shown(value)}, not a list of at least one token")
    for token in value:
        if not isinstance(token, str) or not token or re.search(r"^\s*$|[\t\n]", token):
            raise UserError(
                f"{place}: the token {shown(token)} of {field!r} is not a text without tabs and "
                "line ends; remove it, with its tag"
            )
    return value


def _tags(
    place: str, field: str, value: Any, tokens: Sequence[str], config: TaggedConfig
) -> list[str]:
    if not isinstance(value, list) or len(value) != len(tokens):
        many = f"{len(value)} tags" if isinstance(value, list) else f"{shown(value)}"
        raise UserError(
            f"{place}: {many} ({field!r}) for {len(tokens)} tokens; every token has one tag"
        )
    return [_tag(place, field, tag, config) for tag in value]


def _tag(place: str, field: str, tag: Any, config: TaggedConfig) -> str:
    labels = config.labels
    if isinstance(tag, str) and tag.strip():
        return tag.strip()
    if not isinstance(tag, int) or isinstance(tag, bool):
        raise UserError(f"{place}: {field!r} has {shown(tag)}; a tag is a text or a number")
    if not labels:
        raise UserError(
            f"{place}: the tags ({field!r}) are numbers; give their names with"
            f" {config.option('labels')}, in order"
        )
    if not 0 <= tag < len(labels):
        raise UserError(
            f"{place}: the tag {tag} has no name among the {len(labels)} labels (from 0)"
        )
    return labels[tag]
