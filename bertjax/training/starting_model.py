"""The model a run starts with: a new one of some shape, or one from a directory."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from bertjax.architectures import MASKED_LM, REPLACED_TOKENS, kind_of
from bertjax.config import BertConfig, Kind
from bertjax.families.registry import load_config
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import inspect_model_directory, load_model_directory
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.objectives.masking import Vocabulary
from bertjax.objectives.pretraining import unigram_log_probs
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.tasks.task import Task
from bertjax.text.rows import PreparedDirectory
from bertjax.text.special_tokens import STYLES
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.training.pattern_start import start_with_patterns
from bertjax.training.pretrain_config import ModelConfig, kind_of_objective, shape_new_model


def resolve_model(
    config: ModelConfig,
    seed: int,
    prepared: PreparedDirectory,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    objective: str = MASKED_LM,
) -> tuple[BertConfig, Any, Kind, list[str]]:
    """Returns the model's config, its parameters where not simply drawn (else None), the kind of
    class that is trained, and notes.

    Args:
        config: what was asked for.
        seed: of what is drawn.
        prepared: the rows, which the model must fit.
        tokenizer: of the rows.
        vocabulary: of the rows.
        objective: that of `PretrainConfig`.

    Raises:
        UserError: the model does not fit the rows, or what was asked for contradicts itself.
    """
    length = prepared.train.max_length
    notes_of_init: list[str] = []
    if config.init is None:
        bert_config = shape_new_model(config, tokenizer.vocab_size, tokenizer.ids_of_fields, length)
        params, family = None, bert_config.MODEL_TYPE
        kind = kind_of_objective(objective, bert_config)
        if tokenizer.special_tokens != STYLES[family].tokens:
            notes_of_init.append(
                f"the rows are framed as {tokenizer.describe_frame()}, with the special tokens of"
                f" another family than model.family={family}: if that is not meant, pass another"
                f" --model.family, or make the tokenizer with `bertjax tokenizer --family {family}`"
            )
        if config.start == "patterns":
            if bert_config.MODEL_TYPE != BertConfig.MODEL_TYPE:
                raise UserError(
                    f"model.start=patterns is BERT's: its patterns need the next-sentence head and"
                    f" learned positions; model.family={bert_config.MODEL_TYPE} starts at random"
                )
            log_frequencies = unigram_log_probs(prepared.token_counts, vocabulary)
            key = jax.random.key(seed)
            params = start_with_patterns(bert_config, log_frequencies, tokenizer.sep_id, key)
    elif config.start != "random" or (config.size or config.family) is not None:
        raise UserError(
            "model.start, model.size and model.family are for new models; model.init="
            f"{config.init} has a shape and weights of its own: leave them out, or it"
        )
    else:
        key, folder = jax.random.key(seed), find_model(config.init)
        kind = kind_to_continue(folder, prepared.has_pairs, objective)
        loaded, params, _, notes = load_model_directory(folder, kind, initialize_missing=key)
        chosen = config.differing_fields(type(loaded))
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        for name, value in chosen.items():
            if name not in rates and value != getattr(loaded, name):
                raise UserError(
                    f"model.{name}={value} does not fit model.init={config.init}, where it "
                    f"is {getattr(loaded, name)}; only {' and '.join(rates)} may differ"
                )
        bert_config = dataclasses.replace(loaded, **chosen)
        theirs = load_tokenizer(folder)
        notes_of_init = [f"model.init: {note}" for note in [*notes, *theirs.notes]]
        if theirs.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"the rows in {prepared.path} were made with another tokenizer than the one in "
                f"{config.init}; prepare them again with --tokenizer {config.init}"
            )
    if prepared.card["vocab_size"] != tokenizer.vocab_size:
        raise UserError(
            f"the rows in {prepared.path} were made with {prepared.card['vocab_size']} tokens, and"
            f" {prepared.tokenizer_path} has {tokenizer.vocab_size}: it is another tokenizer;"
            " prepare them again"
        )
    nothing = np.zeros(0, np.int64)
    bert_config.check_ids(np.flatnonzero(prepared.token_counts), nothing, nothing)
    if length > bert_config.max_length:
        raise UserError(
            f"the rows in {prepared.path} are {length} tokens long, the model has "
            f"{bert_config.length_limit}; prepare with "
            f"--max-length {bert_config.max_length}"
            + ("" if config.init else ", or raise model.max_position_embeddings")
        )
    if prepared.has_pairs and kind in (MASKED_LM, REPLACED_TOKENS):
        words = "masked words" if kind == MASKED_LM else "replaced tokens"
        notes_of_init.append(
            f"the rows in {prepared.path} have pairs, and"
            f" {with_article(bert_config.MODEL_TYPE)} is pretrained by the {words}"
            " alone: they are read as pairs, and how their texts follow each other is not learned"
        )
    return bert_config, params, kind, notes_of_init


def kind_to_continue(folder: Path, has_pairs: bool, objective: str = MASKED_LM) -> Kind:
    """Returns the kind of class by which a pretrained model learns further.

    One without a next-sentence head gets none that rows without pairs could not train.

    Args:
        folder: of the model.
        has_pairs: whether the rows have pairs.
        objective: that of `PretrainConfig`.

    Raises:
        UserError: the model's family has no class for the objective.
    """
    if objective != MASKED_LM:
        return kind_of_objective(objective, load_config(folder))
    contents = inspect_model_directory(folder)
    if "nsp_head" in contents.parts or has_pairs:
        return contents.config.pretraining
    return MASKED_LM


@dataclasses.dataclass(frozen=True)
class FinetunedModelConfig:
    """The pretrained model, and what of it is to be otherwise.

    Attributes:
        init: the model to begin with: a directory, ours or Hugging Face's, or a name on the
            Hugging Face hub, ORGANISATION/NAME or ORGANISATION/NAME@REVISION
        num_hidden_layers: keep only the lowest so many layers; none = all
        hidden_dropout_prob: dropout of hidden states, in [0, 1); none = the model's
        attention_probs_dropout_prob: dropout of attention probabilities; none = the model's
        classifier_dropout: dropout before the classifier; none = the model's
        classifier_norm: what stands before the classifier: none as in the paper, layer, or batch
            (folded into the classifier when the model is saved)
    """

    init: str = ""
    num_hidden_layers: int | None = None
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None
    classifier_dropout: float | None = None
    classifier_norm: Literal["none", "layer", "batch"] = "none"


class FinetunedStart(NamedTuple):
    """The model at step 0, where it was read, and a sentence for all that is not as there."""

    config: BertConfig
    params: Any
    tokenizer: Tokenizer
    directory: Path
    notes: list[str]


def resolve_finetuned_model(config: FinetunedModelConfig, task: Task, seed: int) -> FinetunedStart:
    """Reads the pretrained model, with the head that the task needs.

    Raises:
        UserError: no model directory, or one that is not a BERT; more layers than it has.
    """
    if not config.init:
        raise UserError(
            "model.init is missing: name the pretrained model with --model.init, a directory or a"
            " name on the Hugging Face hub"
        )
    folder = find_model(config.init)
    changes = {
        name: value
        for name, value in vars(config).items()
        if value is not None and name not in ("init", "num_hidden_layers")
    }
    loaded = load_model_directory(
        folder,
        kind_of(task.name),
        initialize_missing=jax.random.key(seed),
        changes={**changes, **task.model_fields()},
    )
    bert_config, params, notes = loaded.config, loaded.params, loaded.notes
    layers = config.num_hidden_layers
    if layers is not None:
        if not 1 <= layers <= bert_config.num_hidden_layers:
            raise UserError(
                f"model.num_hidden_layers={layers} must be between 1 and the"
                f" {bert_config.num_hidden_layers} layers of {config.init}"
            )
        encoder = params["bert"]["encoder"]
        encoder["layers"] = jax.tree.map(lambda leaf: leaf[:layers], encoder["layers"])
        bert_config = bert_config.with_layers(layers)
    tokenizer, more = load_model_tokenizer(folder, bert_config)
    return FinetunedStart(bert_config, params, tokenizer, folder, [*notes, *more])
