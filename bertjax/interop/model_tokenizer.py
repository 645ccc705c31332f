"""The tokenizer beside a model: whether it is the model's, and its files as the model needs it."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.config import BertConfig
from bertjax.families.registry import CONFIG_NAME
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    from bertjax.text.tokenizer import Tokenizer


def has_tokenizer(path: Path | str) -> bool:
    """Returns whether a directory has the file of a tokenizer."""
    from bertjax.text.tokenizer_files import find_tokenizer_file

    return find_tokenizer_file(Path(path)) is not None


def load_model_tokenizer(path: Path | str, config: BertConfig) -> tuple["Tokenizer", list[str]]:
    """Loads the tokenizer of a model directory, with notes on its files and its size.

    Args:
        path: the directory.
        config: of its model.

    Raises:
        UserError: there is none, or one with ids that the model has no embedding for, or that pads
            otherwise where positions are counted from the padding.
    """
    from bertjax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(f"{path}: {tokenizer.describe_other_size(config.vocab_size)}")
    if config.first_position and tokenizer.pad_id != config.pad_token_id:
        raise UserError(
            f"{path}: its tokenizer pads with {tokenizer.special_tokens.pad}, id"
            f" {tokenizer.pad_id}, and the model counts positions from pad_token_id="
            f"{config.pad_token_id}; it is the tokenizer of another model"
        )
    notes = list(tokenizer.notes)
    if tokenizer.vocab_size < config.vocab_size:
        notes.append(f"{path}: {tokenizer.describe_other_size(config.vocab_size)}")
    notes += [f"{path}: {note}" for note in compare_special_ids(tokenizer, config)]
    return tokenizer, notes


def compare_special_ids(tokenizer: "Tokenizer", config: BertConfig) -> Iterator[str]:
    """Yields a sentence for each special token that config.json has another id for.

    Texts are read as the tokenizer says. Some files have another family's defaults.
    """
    ids = tokenizer.ids_of_fields
    for fields in (
        ("pad_token_id",),
        ("cls_token_id", "bos_token_id"),
        ("sep_token_id", "eos_token_id"),
    ):
        stated = {field: getattr(config, field, None) for field in fields}
        stated = {field: id for field, id in stated.items() if id is not None}
        own = ids[fields[0]]
        if stated and own not in stated.values():
            [(field, id), *_] = stated.items()
            yield (
                f"its tokenizer has {tokenizer.spell(own)} at id {own}, {CONFIG_NAME} says"
                f" {field}={id}; is it the tokenizer of this model?"
            )


def write_model_tokenizer(directory: Path, tokenizer_path: Path, config: BertConfig) -> None:
    """Writes the files of a tokenizer beside a model, as the tokenizer reads texts.

    Args:
        directory: the model's, with nothing of a tokenizer.
        tokenizer_path: a directory or file of the tokenizer.
        config: of the model.

    Raises:
        UserError: as `load_model_tokenizer`.
    """
    from bertjax.text import tokenizer_files

    tokenizer, _ = load_model_tokenizer(tokenizer_path, config)
    tokenizer.save(directory, config.max_length, None if config.SEGMENTS_ARE_TYPES else False)
    folder = tokenizer_path if tokenizer_path.is_dir() else tokenizer_path.parent
    if (folder / "vocab.txt").is_file():
        shutil.copyfile(folder / "vocab.txt", directory / "vocab.txt")
    if (folder / tokenizer_files.CONFIG_NAME).is_file():
        # What it says beside, it keeps; how texts are spelled, how long they are, and whether the
        # model takes token types, is as here.
        ours, theirs = (
            json.loads((place / tokenizer_files.CONFIG_NAME).read_text(encoding="utf-8"))
            for place in (directory, folder)
        )
        shortest = min(theirs.get("model_max_length") or math.inf, ours["model_max_length"])
        merged = {**theirs, **{name: ours[name] for name in ours.keys() - theirs.keys()}}
        merged["model_max_length"] = int(shortest)
        merged["model_input_names"] = ours["model_input_names"]
        merged |= {
            field: ours[field] for field in tokenizer_files.Spelling._fields if field in ours
        }
        text = to_json(merged, indent=2) + "\n"
        (directory / tokenizer_files.CONFIG_NAME).write_text(text, encoding="utf-8")
