"""Records of .jsonl and .json files."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.record_config import Record, RecordConfig, check_names, shown
from bertjax.text.sources import Source
from bertjax.text.surrogates import without_surrogates

_JSON_BETWEEN = re.compile(r"[\s,]*")


def read_jsonl(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    for number, line in enumerate(streams.lines(source, config), 1):
        if line and not line.isspace():
            place = f"{source.name}:{number}"
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{place}: not JSON ({error}); .jsonl holds one object per line"
                ) from None
            value = without_surrogates(source.name, number, value, line, config)
            yield make_record(place, value, fields)


def read_json(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    """Yields the objects of an array, or of a sequence, read piece by piece: only one object is
    in memory at a time.
    """
    decoder = json.JSONDecoder()
    buffer, line, wanted = "", 1, 0
    array: Literal["none", "open", "closed"] = "none"
    for piece in itertools.chain(streams.pieces(source, config), [None]):
        buffer += piece or ""
        # An object that is not complete yet is tried again only when twice as much has been read:
        # linear time.
        if piece is not None and len(buffer) < wanted:
            continue
        position = 0
        while True:
            gap = _JSON_BETWEEN.match(buffer, position)
            line += gap[0].count("\n")
            position = gap.end()
            if position == len(buffer):
                wanted = 0
                break
            place = f"{source.name}:{line}"
            if array == "closed":
                raise UserError(f"{place}: text after the end of the array")
            if (buffer[position], array) in (("[", "none"), ("]", "open")):
                array = "open" if array == "none" else "closed"
                position += 1
                continue
            try:
                value, end = decoder.raw_decode(buffer, position)
            except RecursionError:
                raise UserError(f"{place}: not a record (JSON nested too deeply)") from None
            except json.JSONDecodeError as error:
                if piece is None or _is_malformed(error):
                    line += buffer.count("\n", position, error.pos)
                    raise UserError(
                        f"{source.name}:{line}: not JSON ({error.msg}); "
                        ".json holds an array of objects, or objects one after the other"
                    ) from None
                wanted = 2 * (len(buffer) - position)
                if wanted > 2 * streams.MAXIMUM_LINE:
                    raise UserError(
                        f"{place}: an object of more than {streams.MAXIMUM_LINE >> 20} million "
                        "characters; make several documents of it"
                    ) from None
                break
            value = without_surrogates(source.name, line, value, buffer[position:end], config)
            yield make_record(place, value, fields)
            line += buffer.count("\n", position, end)
            position = end
        buffer = buffer[position:]
    if array == "open":
        raise UserError(f"{source.name}:{line}: the array does not end; the file is cut off")


def _is_malformed(error: json.JSONDecodeError) -> bool:
    """Returns whether more text could not complete it: the decoder stopped well before the end of
    its input.
    """
    return not error.msg.startswith("Unterminated") and error.pos < len(error.doc) - 16


def make_record(place: str, value: Any, fields: Mapping[str, str] | None) -> Record:
    """Returns a JSON value as a record, which is an object with all the fields."""
    if not isinstance(value, dict):
        wanted = "".join(f" with the field {name!r}" for name in list(fields or ())[:1])
        raise UserError(f"{place}: a record is an object{wanted}, this is {shown(value)}")
    check_names(place, list(value), fields, "field")
    return Record(place, value)
