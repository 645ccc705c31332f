"""The model classes: composition only."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Integer

from bertjax.config import BertConfig, Kind
from bertjax.kernels import dense
from bertjax.kernels.backends import AUTO, Need, choose_backend
from bertjax.model.attention import Backend
from bertjax.model.embeddings import Embeddings
from bertjax.model.encoder import Encoder
from bertjax.model.heads import (
    ClassifierHead,
    MaskedLanguageModelHead,
    Pooler,
    PredictionHead,
)
from bertjax.model.probe_points import Edits, Probes, check_edits, name_points
from bertjax.numerics.placement import pick_vectors, target_platform
from bertjax.program.errors import UserError
from bertjax.types import (
    EncoderOutput,
    HeadOutput,
    PreTrainingOutput,
    SentenceOrderOutput,
    Trace,
)

# An input of a model, of tokens, examples or rows; None: the default.
Ids = Integer[Array, "B ..."] | None


class ModelInputs(NamedTuple):
    """The inputs of `BertModel`, none left out.

    Attributes:
        token_ids: of every token.
        token_type_ids: 0 for the first text of an example, 1 for the second.
        sequence_ids: 0 = padding, k = the k-th example of the row.
        position_ids: from 0 in every example.
        example_starts: the first token of each example; 0 of an unused slot.
        row_ids: numbers of the rows in the whole batch, which dropout depends on.
    """

    token_ids: Integer[Array, "B T"]
    token_type_ids: Integer[Array, "B T"]
    sequence_ids: Integer[Array, "B T"]
    position_ids: Integer[Array, "B T"]
    example_starts: Integer[Array, "B K"]
    row_ids: Integer[Array, " B"]

    def slots_in_use(self) -> Bool[Array, "B K"]:
        """Returns whether there is a k-th example in the row."""
        slots = jnp.arange(1, self.example_starts.shape[1] + 1)
        return (self.sequence_ids[:, :, None] == slots).any(axis=1)

    def average_examples(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B K D"]:
        """Returns the mean of the hidden states of each example's tokens; 0 of an unused slot.

        Args:
            hidden: states of every token.
        """
        slots = jnp.arange(1, self.example_starts.shape[1] + 1)
        own = (self.sequence_ids[:, None] == slots[:, None]).astype(hidden.dtype)  # [B, K, T]
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        sums = jnp.einsum(
            "bkt,btd->bkd", own, hidden, precision="highest", preferred_element_type=wide
        )
        counts = jnp.maximum(own.sum(axis=2, dtype=wide), 1)
        return (sums / counts[..., None]).astype(hidden.dtype)


def complete_inputs(
    config: BertConfig,
    token_ids: Integer[Array, "B T"],
    token_type_ids: Integer[Array, "B T"] | None = None,
    sequence_ids: Integer[Array, "B T"] | None = None,
    position_ids: Integer[Array, "B T"] | None = None,
    example_starts: Integer[Array, "B K"] | None = None,
    row_ids: Integer[Array, " B"] | None = None,
) -> ModelInputs:
    """Returns what stands for an input that is left out: see `BertModel`.

    Args:
        config: of the model.
        token_ids, token_type_ids, sequence_ids, position_ids: as of `BertModel`.
        example_starts, row_ids: as of `BertModel`.
    """
    rows, length = token_ids.shape
    if sequence_ids is None:
        sequence_ids = (token_ids != config.pad_token_id).astype(jnp.int32)
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(token_ids)
    if position_ids is None and config.POSITIONS_SKIP_PADDING:
        real = token_ids != config.pad_token_id
        position_ids = jnp.where(real, jnp.cumsum(real, axis=1), 0) - 1
    elif position_ids is None:
        position_ids = jnp.broadcast_to(jnp.arange(length), (rows, length))
    if example_starts is None:
        example_starts = jnp.zeros((rows, 1), jnp.int32)
    if row_ids is None:
        row_ids = jnp.arange(rows)
    return ModelInputs(
        token_ids, token_type_ids, sequence_ids, position_ids, example_starts, row_ids
    )


class BertModel(nn.Module):
    """BERT's body: embeddings, encoder, pooler.

    Attributes:
        config: the shape.
        dtype: of the matrix products; parameters, softmax and statistics are float32 whatever it
            is.
        remat: a key of `encoder.REMAT_POLICIES`.
        pooling: whether there is a pooler, in a family that has one.
        attention: a key of `kernels.backends.BACKENDS`, or "auto" (see `choose_backend`).
        causal: a token sees nothing behind itself, as in a language model that is to become an
            encoder (Gisserot-Boukhlef et al. 2025); computed by whole maps, whatever `attention`
            is.

    Source: Devlin et al. 2019; google-research/bert `BertModel`.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    pooling: bool = True
    attention: str = AUTO
    causal: bool = False

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.dtype)
        self.encoder = Encoder(self.config, self.dtype, self.remat)
        if self.has_pooler:
            self.pooler = Pooler(self.config, self.dtype)

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        token_type_ids: Integer[Array, "B T"] | None = None,
        sequence_ids: Integer[Array, "B T"] | None = None,
        position_ids: Integer[Array, "B T"] | None = None,
        example_starts: Integer[Array, "B K"] | None = None,
        *,
        row_ids: Integer[Array, " B"] | None = None,
        edit: Edits | None = None,
        dropout: bool = False,
        trace: bool | tuple[str, ...] = False,
    ) -> EncoderOutput:
        """Computes the hidden states of every token and the pooled [CLS] of every example.

        Args:
            token_ids: vocabulary ids.
            token_type_ids: 0 or 1; all 0 when left out.
            sequence_ids: 0 = padding, k = k-th example of the row (see `types.RowBatch`); when left
                out, every token that is not `config.pad_token_id` belongs to one example.
            position_ids: when left out, 0, 1, 2, ...; in RoBERTa padding does not count.
            example_starts: where each example's [CLS] is; when left out, one example that starts at
                0.
            row_ids: places in the global batch, which key the dropout; 0, 1, 2, ... when left out.
            edit: changes of values on their way, by probe point (see `probe_points.Edit`).
            dropout: static; needs `rngs={"dropout": key}`.
            trace: static; the probe points that fill `EncoderOutput.trace`, or True for all.

        Raises:
            UserError: the attention cannot do what is asked, as a trace of its probabilities; no
                such probe point; an edit of another shape.
        """
        config, (rows, length) = self.config, token_ids.shape
        inputs = complete_inputs(
            config, token_ids, token_type_ids, sequence_ids, position_ids, example_starts, row_ids
        )
        row_ids, points = inputs.row_ids, name_points(trace)
        edits = dict(check_edits(edit or {}, config.num_hidden_layers))
        maps = "probs" in points or "probs" in edits
        probes = Probes(edits, points, rows)
        embedded = self.embeddings(
            token_ids, inputs.token_type_ids, inputs.position_ids, row_ids, dropout
        )
        embedded = probes("embedded", embedded)
        edits.pop("embedded", None)
        hidden, layers = self.encoder(
            embedded,
            edits,
            inputs.sequence_ids,
            row_ids,
            inputs.position_ids,
            dropout,
            points,
            self._choose_attention(length, dropout, maps),
        )
        hidden = hidden.reshape(rows, length, -1)
        pooled = None
        if self.has_pooler:
            pooled = self.pooler(pick_vectors(hidden, inputs.example_starts))
        traced = Trace(**probes.kept, **layers) if points else None
        return EncoderOutput(hidden, pooled, traced)

    @property
    def has_pooler(self) -> bool:
        """Whether it answers with a pooled vector of every example."""
        return self.pooling and "pooler" in self.config.PARTS["body"]

    def _choose_attention(self, length: int, dropout: bool, maps: bool) -> Backend:
        config = self.config
        if self.causal and maps:
            raise UserError("a causal model has no attention probabilities to read or edit")
        if self.causal:
            return functools.partial(dense.attention, dtype=self.dtype, causal=True)
        need = Need(
            target_platform(),
            jnp.dtype(self.dtype).name,
            length,
            config.head_size,
            dropout and config.attention_probs_dropout_prob > 0,
            maps,
            config.window is not None,
        )
        return choose_backend(self.attention, need)


class _WithHead(nn.Module):
    """What every class with a head is made of; attributes as `BertModel`.

    The class is that of any family: the config says which one, and what is made of its parts.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    attention: str = AUTO
    causal: bool = False

    def _make_body(self, kind: Kind) -> None:
        """Makes the body of a class, and what its heads have in common."""
        config, parts = self.config, self.config.PARTS[kind]
        if "mlm_head" in parts:
            config.check_decoder()
        self.bert = BertModel(
            config, self.dtype, self.remat, "pooler" in parts, self.attention, self.causal
        )
        begins = "prediction_head" in parts
        self.prediction_head = PredictionHead(config, self.dtype) if begins else None

    def _make_head(self, part: str, classes: int) -> ClassifierHead:
        return ClassifierHead(self.config, part, classes, self.dtype)

    def _call_body(
        self, model_inputs: tuple[Ids, ...], row_ids: Ids, **options: object
    ) -> tuple[ModelInputs, EncoderOutput]:
        """Returns what the body computes, and its inputs, none left out.

        Inputs may be among the options, by their names.
        """
        named = {name: options.pop(name) for name in ModelInputs._fields if name in options}
        inputs = complete_inputs(self.config, *model_inputs, **named, row_ids=row_ids)
        return inputs, self.bert(*inputs[:5], row_ids=inputs.row_ids, **options)

    def _predict(self, hidden: Float[Array, "*places D"]) -> Float[Array, "*places D"]:
        return hidden if self.prediction_head is None else self.prediction_head(hidden)

    def _answer_examples(
        self, head: ClassifierHead, inputs: ModelInputs, body: EncoderOutput, dropout: bool
    ) -> Float[Array, "B K C"]:
        """Computes logits of every example: of its pooled vector, its [CLS], or all its tokens."""
        vectors = body.pooled
        if vectors is None and self.config.pools_mean:
            vectors = inputs.average_examples(body.hidden)
        elif vectors is None:
            vectors = pick_vectors(body.hidden, inputs.example_starts)
        return head(self._predict(vectors), inputs.slots_in_use(), inputs.row_ids, dropout)

    def _answer_tokens(
        self, head: ClassifierHead, inputs: ModelInputs, body: EncoderOutput, dropout: bool
    ) -> Float[Array, "B T C"]:
        """Computes logits of every token."""
        in_use = inputs.sequence_ids != 0
        return head(self._predict(body.hidden), in_use, inputs.row_ids, dropout)

    def restore_words(
        self, hidden: Float[Array, "B T D"], masked_positions: Int[Array, "B P"] | None = None
    ) -> Float[Array, "B P V"]:
        """Computes masked-LM logits of hidden states: at these positions, or at all of them."""
        if masked_positions is not None:
            hidden = pick_vectors(hidden, masked_positions)
        flat = self._predict(hidden.reshape(-1, hidden.shape[-1]))
        logits = self.mlm_head(flat, self.bert.embeddings.word_embeddings)
        return logits.reshape(*hidden.shape[:2], -1)


class BertForPreTraining(_WithHead):
    """The body with both heads of pretraining: masked language model and next sentence."""

    def setup(self) -> None:
        self._make_body("pretraining")
        self.mlm_head = MaskedLanguageModelHead(self.config, self.dtype)
        self.nsp_head = self._make_head("nsp_head", 2)

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        *model_inputs: Ids,
        masked_positions: Int[Array, "B P"] | None = None,
        row_ids: Ids = None,
        dropout: bool = False,
        **options: object,
    ) -> PreTrainingOutput:
        """Computes logits of both heads.

        Args:
            token_ids: vocabulary ids, masked.
            model_inputs: token_type_ids, sequence_ids, position_ids, example_starts of `BertModel`.
            masked_positions: where masked-LM logits are wanted; all T positions when left out.
            row_ids: as all that follow, of `BertModel`.
        """
        inputs, body = self._call_body(
            (token_ids, *model_inputs), row_ids, dropout=dropout, **options
        )
        mlm_logits = self.restore_words(body.hidden, masked_positions)
        nsp_logits = self._answer_examples(self.nsp_head, inputs, body, dropout)
        return PreTrainingOutput(mlm_logits, nsp_logits, body)


class BertForSentenceOrder(_WithHead):
    """The body with ALBERT's heads of pretraining: masked language model and order of two texts.

    Source: Lan et al. 2020, section 3.1; `transformers.AlbertForPreTraining`.
    """

    def setup(self) -> None:
        self._make_body("sentence-order")
        self.mlm_head = MaskedLanguageModelHead(self.config, self.dtype)
        self.order_head = self._make_head("order_head", 2)

    def __call__(
        self,
        *model_inputs: Ids,
        masked_positions: Int[Array, "B P"] | None = None,
        row_ids: Ids = None,
        dropout: bool = False,
        **options: object,
    ) -> SentenceOrderOutput:
        """Computes logits `[B, P, V]`, and `[B, K, 2]` (in order, swapped).

        Arguments as `BertForPreTraining`.
        """
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        mlm_logits = self.restore_words(body.hidden, masked_positions)
        order_logits = self._answer_examples(self.order_head, inputs, body, dropout)
        return SentenceOrderOutput(mlm_logits, order_logits, body)


class BertForMaskedLM(_WithHead):
    """The body with the masked-LM head; no pooler."""

    def setup(self) -> None:
        self._make_body("masked-lm")
        self.mlm_head = MaskedLanguageModelHead(self.config, self.dtype)

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        *model_inputs: Ids,
        masked_positions: Int[Array, "B P"] | None = None,
        **options: object,
    ) -> HeadOutput:
        """Computes logits `[B, P, V]`; arguments as `BertForPreTraining`."""
        body = self.bert(token_ids, *model_inputs, **options)
        return HeadOutput(self.restore_words(body.hidden, masked_positions), body)


class BertForNextSentencePrediction(_WithHead):
    """The body with the next-sentence head."""

    def setup(self) -> None:
        self._make_body("next-sentence")
        self.nsp_head = self._make_head("nsp_head", 2)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes logits `[B, K, 2]` (is next, is random); arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(self._answer_examples(self.nsp_head, inputs, body, dropout), body)


class BertForReplacedTokenDetection(_WithHead):
    """The body with a logit for every token: whether a generator has replaced it.

    Source: Clark et al. 2020, section 2, ELECTRA's discriminator; `transformers`
    `ElectraForPreTraining`.
    """

    def setup(self) -> None:
        self._make_body("replaced-tokens")
        self.replaced_head = self._make_head("replaced_head", 1)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes logits `[B, T]`, above 0 where replaced; arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(
            self._answer_tokens(self.replaced_head, inputs, body, dropout)[..., 0], body
        )


class BertForSequenceClassification(_WithHead):
    """The body with a classifier of every example, on its [CLS]; C=1 is a regression.

    Source: Devlin et al. 2019, section 4.1; google-research/bert `run_classifier.create_model`.
    """

    def setup(self) -> None:
        self._make_body("sequence")
        self.sequence_head = self._make_head("sequence_head", self.config.num_labels)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes logits `[B, K, C]`; arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(self._answer_examples(self.sequence_head, inputs, body, dropout), body)


class BertForMultipleChoice(_WithHead):
    """The body with a score for every sequence, on its [CLS]: the choices of a question.

    Source: Devlin et al. 2019, section 4.4 (SWAG); `transformers.BertForMultipleChoice`.
    """

    def setup(self) -> None:
        self._make_body("choice")
        self.choice_head = self._make_head("choice_head", 1)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes scores `[B, K]`, to compare a question's choices; arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(
            self._answer_examples(self.choice_head, inputs, body, dropout)[..., 0], body
        )


class BertForTokenClassification(_WithHead):
    """The body with a classifier of every token; no pooler.

    Source: Devlin et al. 2019, section 5.3.
    """

    def setup(self) -> None:
        self._make_body("tokens")
        self.token_head = self._make_head("token_head", self.config.num_labels)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes logits `[B, T, C]`; arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(self._answer_tokens(self.token_head, inputs, body, dropout), body)


class BertForQuestionAnswering(_WithHead):
    """The body with two logits a token, start and end of the answer; no pooler.

    Source: Devlin et al. 2019, section 4.2; google-research/bert `run_squad.create_model`.
    """

    def setup(self) -> None:
        self._make_body("spans")
        self.span_head = self._make_head("span_head", 2)

    def __call__(
        self, *model_inputs: Ids, row_ids: Ids = None, dropout: bool = False, **options: object
    ) -> HeadOutput:
        """Computes logits `[B, T, 2]` (start, end); arguments as `BertModel`."""
        inputs, body = self._call_body(model_inputs, row_ids, dropout=dropout, **options)
        return HeadOutput(self._answer_tokens(self.span_head, inputs, body, dropout), body)
