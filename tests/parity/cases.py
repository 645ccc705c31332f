"""Configurations and batches for the ladder, as hypothesis draws them."""

import zlib
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bertjax.architectures import ARCHITECTURES
from bertjax.config import HIDDEN_ACTIVATIONS, PROBLEM_TYPES, BertConfig
from bertjax.families.albert import AlbertConfig
from bertjax.families.distilbert import DistilBertConfig
from bertjax.families.electra import ElectraConfig
from bertjax.families.modernbert import GLOBAL, LOCAL, ModernBertConfig
from bertjax.families.roberta import RobertaConfig
from tests.parity.ladder import Case, make_case


@st.composite
def random_cases(draw: st.DrawFn, family: str) -> Case:
    """Any model of up to 3 layers and a width of 32, and a batch with any pattern of padding.

    Widths begin at 8: the LayerNorm of a few numbers is ill-conditioned, whoever computes it.
    """
    heads = draw(st.integers(1, 4), label="heads")
    head_size = draw(st.integers(-(-8 // heads), 32 // heads), label="head size")
    length = draw(st.integers(2, 13), label="length")
    labels = draw(st.integers(1, 5), label="labels")
    problems = [None, *PROBLEM_TYPES]
    if labels == 1:  # there is nothing to choose from
        problems.remove("single_label_classification")
    fields = {
        "vocab_size": draw(st.integers(5, 99), label="vocabulary"),
        "hidden_size": heads * head_size,
        "num_hidden_layers": draw(st.integers(1, 3), label="layers"),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 64), label="intermediate size"),
        "hidden_act": draw(st.sampled_from(HIDDEN_ACTIVATIONS), label="activation"),
        "max_position_embeddings": draw(st.integers(length, 19), label="positions"),
        "type_vocab_size": draw(st.integers(1, 4), label="token types"),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-6, 1e-5, 1e-3]), label="epsilon"),
        "id2label": tuple(f"label {number}" for number in range(labels)),
        "problem_type": draw(st.sampled_from(problems), label="problem"),
    }
    config = OF_FAMILY[family](draw, fields)
    choices = draw(st.integers(1, 3), label="choices")
    rows = choices * draw(st.integers(1, 2), label="questions")
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    random = np.random.default_rng(seed)
    real = draw_padding(random, rows, length, draw(st.sampled_from(PADDING), label="padding"))
    # A real token is never the padding token: torch gives that one no gradient.
    words = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    token_ids = np.where(real, random.choice(words, real.shape), config.pad_token_id)
    return make_case(config, token_ids, real, choices, seed)


def draw_bert(draw: st.DrawFn, fields: dict[str, Any]) -> BertConfig:
    return BertConfig(**fields)


def draw_roberta(draw: st.DrawFn, fields: dict[str, Any]) -> RobertaConfig:
    fields["pad_token_id"] = draw(st.integers(0, 3), label="padding")
    fields["max_position_embeddings"] += fields["pad_token_id"] + 1
    return RobertaConfig(**fields)


def draw_distilbert(draw: st.DrawFn, fields: dict[str, Any]) -> DistilBertConfig:
    own = {field: value for field, value in fields.items() if field not in FIXED_IN_DISTILBERT}
    return DistilBertConfig(**own)


def draw_electra(draw: st.DrawFn, fields: dict[str, Any]) -> ElectraConfig:
    fields["embedding_size"] = draw(
        st.one_of(st.integers(8, 32), st.just(fields["hidden_size"])), label="embedding size"
    )
    fields["summary_activation"] = draw(
        st.sampled_from(["gelu", "tanh", "relu"]), label="activation of choices"
    )
    return ElectraConfig(**fields)


def draw_albert(draw: st.DrawFn, fields: dict[str, Any]) -> AlbertConfig:
    fields["embedding_size"] = draw(
        st.one_of(st.integers(8, 32), st.just(fields["hidden_size"])), label="embedding size"
    )
    return AlbertConfig(**fields)


def draw_modernbert(draw: st.DrawFn, fields: dict[str, Any]) -> ModernBertConfig:
    del fields["type_vocab_size"]
    heads, layers = fields["num_attention_heads"], fields["num_hidden_layers"]
    fields["hidden_size"] += fields["hidden_size"] // heads % 2 * heads  # heads of an even size
    kinds = st.lists(st.sampled_from([GLOBAL, LOCAL]), min_size=layers, max_size=layers)
    fields["layer_types"] = draw(st.none() | kinds.map(tuple), label="kinds of layers")
    fields["pad_token_id"] = draw(st.integers(0, 3), label="padding")
    for field, choices in (
        ("global_attn_every_n_layers", [1, 2, 3]),
        ("local_attention", [2, 3, 4, 7, 128]),
        ("classifier_pooling", ["cls", "mean"]),
        ("classifier_activation", HIDDEN_ACTIVATIONS),
        ("global_rope_theta", [160_000.0, 100.0]),
        ("local_rope_theta", [None, 10_000.0, 50.0]),
        ("norm_bias", [False, True]),
        ("attention_bias", [False, True]),
        ("mlp_bias", [False, True]),
        ("classifier_bias", [False, True]),
        ("decoder_bias", [False, True]),
    ):
        fields[field] = draw(st.sampled_from(choices), label=field)
    return ModernBertConfig(**fields)


FIXED_IN_DISTILBERT = ("type_vocab_size", "layer_norm_eps")
# How the config of a family is drawn, from BERT's fields.
OF_FAMILY = {
    "bert": draw_bert,
    "roberta": draw_roberta,
    "distilbert": draw_distilbert,
    "electra": draw_electra,
    "albert": draw_albert,
    "modernbert": draw_modernbert,
}
# A family whose classes in transformers are another's by another name has no cases of its own.
CLASSES_OF = {
    family: [name for name, one in ARCHITECTURES.items() if one.family == family]
    for family in OF_FAMILY
}

# none; at the end, as everybody pads; or anywhere, as a mask may be given by hand.
PADDING = ("none", "end", "anywhere")


def draw_padding(random: np.random.Generator, rows: int, length: int, pattern: str) -> np.ndarray:
    """`[rows, length]`, 1 = real; the first token of every row is, for the pooler looks at it."""
    if pattern == "none":
        return np.ones((rows, length), np.int64)
    if pattern == "end":
        lengths = random.integers(1, length + 1, (rows, 1))
        return (np.arange(length) < lengths).astype(np.int64)
    real = random.integers(0, 2, (rows, length))
    real[:, 0] = 1
    return real


def draw_cases(family: str, number: int) -> list[Case]:
    """Draws so many cases, the same ones every time, other ones for each family."""
    options = settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    cases: list[Case] = []

    @seed(zlib.crc32(family.encode()))
    @options
    @given(random_cases(family))
    def keep(case: Case) -> None:
        cases.append(case)

    keep()
    return cases
