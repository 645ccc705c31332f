"""Google's original checkpoints of BERT: where they are, what they call their tensors."""

import collections
import json
import re
from pathlib import Path
from typing import NamedTuple

from bertjax.architectures import find_architecture
from bertjax.config import BertConfig
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
# Variables of the optimizer and of the training loop. Source: google-research/bert optimization.py,
# TensorFlow's own optimizers.
_OF_TRAINING = re.compile(
    r".*/(adam_[mv]|lamb_[mv]|Adam|Adam_1|Momentum)|global_step|beta[12]_power"
)
# The variables of run_classifier.py and its likes, which do not say what is classified.
_CLASSIFIER = "output_weights"
_CLASSIFYING = {"class", "tag", "choice"}
# Source: google-research/bert modeling.py, run_pretraining.py, run_squad.py.
_SPELLINGS = (
    (r"^cls/squad/output_", "qa_outputs/"),
    (r"^output_", "classifier/"),
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
    """Reads a checkpoint of google-research/bert, with its `bert_config.json`.

    Args:
        prefix: what the names of its files begin with.
        architecture: the class that is wanted, which says what a classifier is.

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
    slots = collections.Counter(match[1] or match[0] for match in training.values() if match)
    left_out = [
        f"{slot}: {counted(number, 'tensor')} of the training" for slot, number in slots.items()
    ]
    others = [name for name in learned if not re.match(r"(bert|cls)/|output_(weights|bias)$", name)]
    if others or not learned:
        what = f"tensor {others[0]}" if others else "no tensors"
        raise UserError(
            f"{index}: has {what}, so it is no checkpoint of google-research/bert, whose names"
            " begin with bert/ and cls/"
        )
    wanted = find_architecture(architecture, BertConfig()) if architecture else None
    if wanted and not _CLASSIFYING & set(wanted.outputs):
        own = [name for name in learned if name.startswith("output_")]
        learned = [name for name in learned if name not in own]
        left_out += [f"{name}: of a classifier, which {wanted.name} has not" for name in own]
    elif _CLASSIFIER in learned and architecture is None:
        raise UserError(
            f"{index}: has a classifier ({_CLASSIFIER}) and does not say of what; name its class:"
            " --architecture BertForSequenceClassification of texts,"
            " BertForTokenClassification of words, or BertModel to leave it out"
        )
    tensors = {}
    for name, array in read_tensors(bundle, learned).items():
        array = array.T if name.endswith("/kernel") else array
        tensors[_their_name(name)] = tensor_of_array(data_file(bundle, name), name, array)
    classifier = tensors.get("classifier.weight")
    labels = {} if classifier is None else {"num_labels": classifier.shape[0]}
    config = _read_config(prefix.parent, labels)
    return GoogleCheckpoint(prefix.parent, tensors, config, left_out)


def _their_name(name: str) -> str:
    for pattern, replacement in _SPELLINGS:
        name = re.sub(pattern, replacement, name)
    return name


def _read_config(folder: Path, labels: dict[str, int]) -> BertConfig:
    file = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)
    lacking = [CONFIG_NAMES[0]] * (file is None)
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        lacking.append("vocab.txt")
    if lacking:
        raise UserError(
            f"{folder}: no {' and no '.join(lacking)} beside the TensorFlow checkpoint; put there"
            " those of the model's release"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return BertConfig.from_dict({**values, **labels})
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: damaged, not the object of a config ({error})") from None
