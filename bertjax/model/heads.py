"""What stands on top of the encoder: pooler, masked-LM and next-sentence head, heads of tasks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from bertjax.config import CLASSIFIERS, BertConfig
from bertjax.model.layers import LayerNorm, Linear, activate
from bertjax.numerics.dropout import drop_out
from bertjax.numerics.products import multiply

# Source: torch.nn.BatchNorm1d (a tenth of the new, flax: a hundredth; epsilon as flax).
BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON = 0.9, 1e-5


class Pooler(nn.Module):
    """tanh(dense) of each example's [CLS].

    Attributes:
        config: of the model.
        dtype: of the matrix products.

    Source: google-research/bert `BertModel.pooled_output`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, first_hidden: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        width = (self.config.hidden_size,)
        dense = Linear(width, width, self.config.initializer_range, self.dtype, name="dense")
        return jnp.tanh(dense(first_hidden))


class PredictionHead(nn.Module):
    """dense, activation, LayerNorm: what every head of a ModernBERT begins with.

    Attributes:
        config: of the model.
        dtype: of the matrix products.

    Source: Warner et al. 2024; `transformers` `ModernBertPredictionHead`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "*places D"]) -> Float[Array, "*places D"]:
        config, width = self.config, (self.config.hidden_size,)
        dense = Linear(
            width,
            width,
            config.output_initializer_range,
            self.dtype,
            has_bias=config.classifier_bias,
            cutoff=config.initializer_cutoff,
            name="dense",
        )
        activated = activate(config.classifier_activation, dense(hidden))
        return LayerNorm(config.layer_norm_eps, config.norm_bias, name="layer_norm")(activated)


class MaskedLanguageModelHead(nn.Module):
    """dense, activation, LayerNorm, then the token embedding as decoder (tied), a bias per token.

    Behind a `PredictionHead`, which has them already, it is the decoder alone.

    Attributes:
        config: of the model.
        dtype: of the matrix products.

    Source: google-research/bert `get_masked_lm_output`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "slots D"], word_embeddings: Float[Array, "V E"]
    ) -> Float[Array, "slots V"]:
        """Computes float32 logits of the hidden states given, which training gathers beforehand."""
        config = self.config
        if "prediction_head" not in config.PARTS["masked-lm"]:
            width, inner = (config.hidden_size,), (config.embedding_size,)
            dense = Linear(inner, width, config.initializer_range, self.dtype, name="dense")
            hidden = activate(config.mlm_activation, dense(hidden))
            hidden = LayerNorm(config.layer_norm_eps, name="layer_norm")(hidden)
        logits = multiply(hidden, word_embeddings, 1, self.dtype, outputs_first=True, widen=True)
        if not config.decoder_bias:
            return logits
        return _add_token_bias(logits, self.param("bias", nn.initializers.zeros, logits.shape[-1:]))


class ClassifierHead(nn.Module):
    """Normalisation where the config asks for it, dropout, and a linear layer to float32 logits.

    Every head but that of masked words is one: next sentence and spans of a BERT are the linear
    layer alone. `config.head_transform(part)` puts a dense layer before all of it, as the
    classifiers of families without a pooler have (Liu et al. 2019, RoBERTa), and
    `config.head_dropout(part)` says the dropout.

    `config.classifier_norm` says which normalisation the parts in `CLASSIFIERS` have: none, as in
    the paper; layer; or batch, in training over all places in use of the batch (flax's `BatchNorm`,
    running statistics in the collection "batch_stats"), otherwise by the running statistics. It
    comes before the dropout: behind it the running variance would count the noise of the dropout,
    which evaluation has not (Li et al. 2018, "Understanding the disharmony between dropout and
    batch normalization").

    Attributes:
        config: of the model.
        part: its name among the parameters, a key of the family's parts.
        classes: C, how many logits.
        dtype: of the matrix products.

    Source: google-research/bert `run_classifier.create_model`, `run_squad.create_model`,
    `get_next_sentence_output`; `transformers.BertForSequenceClassification`.
    """

    config: BertConfig
    part: str
    classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B places D"],
        in_use: Bool[Array, "B places"],
        row_ids: Integer[Array, " B"],
        training: bool,
    ) -> Float[Array, "B places C"]:
        config, width = self.config, (self.config.hidden_size,)
        spread, rate = config.initializer_range, config.head_dropout(self.part)
        normalization = config.classifier_norm if self.part in CLASSIFIERS else "none"

        def drop(values: Float[Array, "B places D"]) -> Float[Array, "B places D"]:
            if not training or rate == 0:
                return values
            return drop_out(values, rate, self.make_rng("dropout"), row_ids)

        if transform := config.head_transform(self.part):
            dense = Linear(width, width, spread, self.dtype, name="transform")
            hidden = dense(drop(hidden) if transform.drops_before else hidden)
            hidden = activate(transform.activation, hidden)
        if normalization == "layer":
            hidden = LayerNorm(config.layer_norm_eps, name="norm")(hidden)
        elif normalization == "batch":
            norm = nn.BatchNorm(
                use_running_average=not training,
                momentum=BATCH_NORM_MOMENTUM,
                epsilon=BATCH_NORM_EPSILON,
                name="norm",
            )
            hidden = norm(hidden, mask=in_use[..., None])
        dense = Linear(
            (self.classes,),
            width,
            config.classifier_initializer_range,
            self.dtype,
            widen=True,
            cutoff=config.initializer_cutoff,
            name="dense",
        )
        return dense(drop(hidden))


def fold_batch_norm(
    config: BertConfig, params: Mapping[str, Any], statistics: Mapping[str, Any]
) -> tuple[BertConfig, Mapping[str, Any]]:
    """Folds a classifier's batch normalisation into its linear layer.

    By the running statistics the normalisation is (x - mean) / sqrt(var + epsilon) * scale + bias,
    itself linear. A model that has none is returned as it is.

    Args:
        config: of the model.
        params: the collection "params".
        statistics: the other collections ("batch_stats").
    """
    if config.classifier_norm != "batch":
        return config, params
    [name] = statistics["batch_stats"]
    running = statistics["batch_stats"][name]["norm"]
    norm, dense = params[name]["norm"], params[name]["dense"]
    slope = norm["scale"] / np.sqrt(np.asarray(running["var"]) + BATCH_NORM_EPSILON)
    shift = norm["bias"] - np.asarray(running["mean"]) * slope
    kernel = np.asarray(dense["kernel"])
    folded = {
        "kernel": kernel * np.asarray(slope)[:, None],
        "bias": np.asarray(dense["bias"]) + np.asarray(shift) @ kernel,
    }
    config = dataclasses.replace(config, classifier_norm="none")
    head = {part: value for part, value in params[name].items() if part != "norm"}
    return config, {**params, name: {**head, "dense": folded}}


@jax.custom_jvp
def _add_token_bias(
    logits: Float[Array, "slots V"], bias: Float[Array, " V"]
) -> Float[Array, "slots V"]:
    """Adds both, with the bias' gradient as a matrix product.

    XLA:CPU adds up the columns of so wide a matrix 25 times as slowly as it multiplies it by ones.
    """
    return logits + bias


@_add_token_bias.defjvp
def _add_token_bias_forward(
    values: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (logits, bias), (of_logits, of_bias) = values, tangents
    ones = jnp.ones(logits.shape[0], of_bias.dtype)
    # Transposed, this is the product of ones with the gradient.
    spread = jnp.einsum("s,v->sv", ones, of_bias, precision="highest")
    return logits + bias, of_logits + spread
