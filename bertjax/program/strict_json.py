"""JSON as bertjax prints and writes it everywhere: what is not a number is null."""

import json
import re
from collections.abc import Mapping
from typing import Any


def to_json(
    value: Any, *, indent: int | None = None, compact: bool = False, sort_keys: bool = False
) -> str:
    """Returns the value as JSON, with letters of all alphabets as they are.

    JSON has neither NaN nor infinity, and most readers refuse what Python writes for them; they
    become null, at any depth.

    Args:
        value: made of mappings, lists, tuples, texts and numbers.
        indent: spaces a level; everything on one line when left out.
        compact: no space after commas and colons.
        sort_keys: sort the fields of every mapping by name.
    """
    options: dict[str, Any] = {
        "indent": indent,
        "separators": (",", ":") if compact else None,
        "sort_keys": sort_keys,
        "ensure_ascii": False,
        "allow_nan": False,
    }
    try:
        text = json.dumps(value, **options)
    except ValueError:  # a number that is not finite
        text = json.dumps(_finite(value), **options)
    # Unpaired surrogates (from file names that are not UTF-8, say) have no bytes in UTF-8.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
