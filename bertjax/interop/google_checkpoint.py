"""Google's checkpoints of BERT and ELECTRA: where they are, what they call their tensors."""

import collections
import json
import re
from pathlib import Path
from typing import NamedTuple

from bertjax.architectures import MASKED_LM, Architecture, find_architecture
from bertjax.config import BertConfig
from bertjax.families.registry import read_config
from bertjax.interop.checkpoint_files import Tensor, tensor_of_array
from bertjax.interop.tensor_bundle import (
    INDEX_SUFFIX,
    OBJECT_GRAPH,
    data_file,
    read_bundle,
    read_tensors,
)
from bertjax.program.errors import UserError
from bertjax.program.wording import counted

CONFIG_NAMES = ("bert_config.json", "config.json")
# Variables of the optimizer and of the training loop. Source: optimization.py of both programs,
# TensorFlow's own optimizers.
_OF_TRAINING = re.compile(
    r".*/(adam_[mv]|lamb_[mv]|Adam|Adam_1|Momentum)|global_step|beta[12]_power"
)
# The `model_type` of a program -> what the names of its tensors begin with.
_STARTS = {
    "bert": ("bert/", "cls/", "output_weights", "output_bias"),
    "electra": (
        *("electra/", "discriminator_predictions/"),
        *("generator/", "generator_predictions/"),
    ),
}
# The variables of run_classifier.py and its likes, which do not say what is classified.
_CLASSIFIER = "output_weights"
_CLASSIFYING = {"class", "tag", "choice"}
# Source: modeling.py and run_pretraining.py of both programs, run_squad.py.
_SPELLINGS = (
    (r"^cls/squad/output_", "qa_outputs/"),
    (r"^output_", "classifier/"),
    (r"^generator/", "electra/"),
    (r"^generator_predictions/output_bias$", "generator_lm_head/bias"),
    (r"(?<=^discriminator_predictions)/dense_1/", "/dense_prediction/"),
    (r"(?<=cls/predictions)/output_bias$", "/bias"),
    (r"(?<=cls/seq_relationship)/output_", "/"),
    (r"/weights$", "/weight"),
    (r"(?<=/layer)_(\d+)(?=/)", r"/\1"),
    (r"/(kernel|gamma)$", "/weight"),
    (r"/beta$", "/bias"),
    (r"_embeddings$", r"\g<0>/weight"),
    (r"/", "."),
)


class GoogleCheckpoint(NamedTuple):
    """A checkpoint whose tensors have Hugging Face's names.

    Attributes:
        folder: of the checkpoint, with its vocabulary.
        tensors: by their new names, in torch's layout.
        config: the shape of the model, as its bert_config.json says.
        left_out: a sentence for everything that is no part of the model.
    """

    folder: Path
    tensors: dict[str, Tensor]
    config: BertConfig
    left_out: list[str]


def find_google_checkpoint(path: Path) -> Path | None:
    """Finds a checkpoint and returns what the names of its files begin with; None for none.

    Args:
        path: that itself, its index, the folder, or one with that folder in it, as the released
            archives have it.

    Raises:
        UserError: there are several.
    """
    if path.name.endswith(INDEX_SUFFIX) and path.is_file():
        return path.with_name(path.name.removesuffix(INDEX_SUFFIX))
    if not path.is_dir():
        return path if Path(f"{path}{INDEX_SUFFIX}").is_file() else None
    found = [
        file
        for pattern in ("*", "*/*")
        for file in sorted(path.glob(f"{pattern}{INDEX_SUFFIX}"))
        if "ckpt" in file.name or any(file.parent.glob(f"{file.stem}.data-*"))
    ]
    found = [file for file in found if file.parent == path] or found
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found[:4])
        raise UserError(
            f"{path}: has {len(found)} TensorFlow checkpoints ({names}"
            f"{', ...' * (len(found) > 4)}); name the one that is wanted, for instance"
            f" {found[-1].with_suffix('')}"
        )
    return found[0].with_suffix("") if found else None


def read_google_checkpoint(prefix: Path, architecture: str | None) -> GoogleCheckpoint:
    """Reads a checkpoint of google-research/bert or google-research/electra, with its config.

    Args:
        prefix: what the names of its files begin with.
        architecture: the class that is wanted, which says what a classifier is, and which of
            ELECTRA's two models is meant: the generator for the masked LM, else the discriminator.

    Raises:
        UserError: it is damaged, of another program, or has no config.
    """
    bundle = read_bundle(prefix)
    index = f"{prefix}{INDEX_SUFFIX}"
    if OBJECT_GRAPH in bundle.entries:
        raise UserError(
            f"{index}: an object-based checkpoint of TensorFlow 2 (`tf.train.Checkpoint`), whose"
            " names are those of Python objects and not of BERT; take the model's original release"
            " for TensorFlow 1 (bert_model.ckpt), or its directory on the Hugging Face hub"
        )
    training = {name: _OF_TRAINING.fullmatch(name) for name in bundle.entries}
    learned = [name for name, match in training.items() if match is None]
    model_type = _recognise(index, learned)
    labels = bundle.entries[_CLASSIFIER].shape[:1] if _CLASSIFIER in learned else ()
    config = _read_config(prefix.parent, model_type, *labels)
    wanted = find_architecture(architecture, config) if architecture else None
    if _CLASSIFIER in learned and wanted is None:
        raise UserError(
            f"{index}: has a classifier ({_CLASSIFIER}) and does not say of what; name its class:"
            " --architecture BertForSequenceClassification of texts,"
            " BertForTokenClassification of words, or BertModel to leave it out"
        )
    choose = _choose_of_electra if model_type == "electra" else _choose_of_bert
    kept = choose(learned, wanted)
    tensors = {}
    for name, array in read_tensors(bundle, kept).items():
        array = array.T if name.endswith("/kernel") else array
        tensors[_their_name(name)] = tensor_of_array(data_file(bundle, name), name, array)
    slots = collections.Counter(match[1] or match[0] for match in training.values() if match)
    others = collections.Counter(name.split("/")[0] for name in {*learned} - {*kept})
    return GoogleCheckpoint(
        prefix.parent,
        tensors,
        config,
        [
            *(
                f"{slot}: {counted(number, 'tensor')} of the training"
                for slot, number in slots.items()
            ),
            *(
                f"{top}: {counted(number, 'tensor')} that the class has no place for"
                for top, number in sorted(others.items())
            ),
        ],
    )


def _recognise(index: str, learned: list[str]) -> str:
    """Returns the `model_type` of the program that calls its tensors so."""
    others = {
        model_type: [name for name in learned if not name.startswith(starts)]
        for model_type, starts in _STARTS.items()
    }
    model_type = min(others, key=lambda model_type: len(others[model_type]))
    if others[model_type] or not learned:
        what = [f"tensor {name}" for name in others[model_type]] or ["no tensors"]
        raise UserError(
            f"{index}: has {what[0]}, so it is no checkpoint of google-research/bert (whose names"
            " begin with bert/ and cls/) or google-research/electra (electra/ and generator/)"
        )
    return model_type


def _choose_of_bert(learned: list[str], wanted: Architecture | None) -> list[str]:
    """Returns the names of the tensors of the model: all but a classifier that is not wanted."""
    if wanted is None or _CLASSIFYING & set(wanted.outputs):
        return learned
    return [name for name in learned if not name.startswith("output_")]


def _choose_of_electra(learned: list[str], wanted: Architecture | None) -> list[str]:
    """Returns the names of the tensors of the generator, or of the discriminator.

    The generator shares the tables of the discriminator, or all of its body, unless it was trained
    otherwise.
    """
    if wanted is None or wanted.kind != MASKED_LM:
        return [name for name in learned if name.startswith(("electra/", "discriminator_"))]
    has_body, has_tables = (
        any(name.startswith(start) for name in learned)
        for start in ("generator/", "generator/embeddings/")
    )
    shared = "electra/embeddings/" if has_body else "electra/"
    starts = ("generator/", "generator_predictions/", *([] if has_tables else [shared]))
    return [name for name in learned if name.startswith(starts)]


def _their_name(name: str) -> str:
    for pattern, replacement in _SPELLINGS:
        name = re.sub(pattern, replacement, name)
    return name


def _read_config(folder: Path, model_type: str, labels: int | None = None) -> BertConfig:
    file = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)
    # ELECTRA's releases have no config.
    lacking = [CONFIG_NAMES[model_type == "electra"]] * (file is None)
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        lacking.append("vocab.txt")
    if lacking:
        raise UserError(
            f"{folder}: no {' and no '.join(lacking)} beside the TensorFlow checkpoint; put there"
            " those of the model's release, or of its directory on the Hugging Face hub"
        )
    try:
        values = {"model_type": model_type, **json.loads(file.read_text(encoding="utf-8"))}
        if values["model_type"] != model_type:
            raise UserError(
                f"model_type={values['model_type']!r}, the checkpoint's is {model_type}"
            )
        return read_config(values if labels is None else {**values, "num_labels": labels})
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: damaged, not the object of a config ({error})") from None
