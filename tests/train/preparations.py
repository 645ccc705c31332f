"""Small preparations for tests: their options, and what they wrote."""

import dataclasses
import hashlib
from pathlib import Path

from bertjax.text.cleaning import CleaningConfig
from bertjax.text.duplicates import DuplicateConfig
from bertjax.text.pairs import PairConfig
from bertjax.text.preparation_options import PreparationOptions, RowConfig
from bertjax.text.readers import ReaderConfig


def options(corpus: Path, **fields) -> PreparationOptions:
    """Options for a small corpus; `fields` go to the config that has them."""
    values = {"max_length": 64, "validation_fraction": 0.15, "test_fraction": 0.15} | fields
    kinds = (ReaderConfig, CleaningConfig, DuplicateConfig, PairConfig, RowConfig)
    values["input"] = [str(corpus)]
    configs = []
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        configs.append(kind(**{name: values.pop(name) for name in names}))
    assert not values
    return PreparationOptions(*configs)


def sha256_of_files(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
