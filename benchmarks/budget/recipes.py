"""The recipes that `benchmarks.bench_budget` compares, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple


class Ours(NamedTuple):
    """A run of `bertjax pretrain`.

    Attributes:
        says: what it is, for the table.
        config: the file in configs/pretrain.
        pairs: whether it learns from rows of pairs.
        fields: what differs from the file.
    """

    says: str
    config: str
    pairs: bool = False
    fields: Mapping[str, Any] = MappingProxyType({})


class Torch(NamedTuple):
    """A run of transformers' classes in a loop of torch's.

    Attributes:
        says: what it is, for the table.
        model_type: of the model.
        learning_rate, betas, weight_decay, clip_norm: of AdamW.
        warmup: share of the minutes in which the rate rises; then it falls in a straight line to 0.
        rates: of masking, at the beginning and at the end.
        batch_size: rows a step.
        dropout: of hidden states and attention probabilities.
        dtype: of products; auto = the faster one here, measured first.
    """

    says: str
    model_type: Literal["bert", "modernbert"]
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup: float = 0.0
    rates: tuple[float, float] = (0.15, 0.15)
    batch_size: int = 8
    dropout: float = 0.1
    dtype: Literal["float32", "auto"] = "float32"


def without(ingredient: str, fields: Mapping[str, Any]) -> Ours:
    """Returns minutes.yaml without one of its ingredients."""
    return Ours(f"minutes.yaml without {ingredient}", "minutes", fields=fields)


def adding(ingredient: str, fields: Mapping[str, Any]) -> Ours:
    """Returns minutes.yaml with something that it has not."""
    return Ours(f"minutes.yaml with {ingredient}", "minutes", fields=fields)


RECIPES: dict[str, Ours | Torch] = {
    # Source: transformers' examples/pytorch/language-modeling/run_mlm.py and its defaults:
    # AdamW at 5e-5, no weight decay, no warm-up, 8 rows, 15 % of the tokens, dropout 0.1, float32.
    "run_mlm": Torch("torch, run_mlm.py's recipe", "bert", 5e-5),
    # What torch and transformers have of minutes.yaml: all but the causal phase.
    "torch": Torch(
        "torch, minutes.yaml's recipe without the causal phase", "modernbert", 1e-3, (0.9, 0.98),
        0.01, warmup=0.05, rates=(0.25, 0.25), dropout=0.0, dtype="auto",
    ),
    "textbooks": Ours("textbooks.yaml", "textbooks", pairs=True),
    "textbooks-float32": Ours(
        "textbooks.yaml in float32", "textbooks", pairs=True, fields={"dtype": "float32"}
    ),
    "minutes": Ours("minutes.yaml", "minutes"),
    # Each ingredient of minutes.yaml taken out, and some that are not in it.
    "no-causal": without("the causal phase", {"phases.shares": 1.0, "phases.causal": False}),
    "no-body": without(
        "ModernBERT's body (BERT's with patterns)",
        {"model.family": "bert", "model.start": "patterns", "model.hidden_dropout_prob": 0.0,
         "model.attention_probs_dropout_prob": 0.0},
    ),
    "no-bfloat16": without("bfloat16", {"dtype": "float32"}),
    "no-dots": without("remat dots (full)", {"remat": "full"}),
    "no-rate": without("masking 25 % (15 %)", {"masking.rate": 0.15}),
    "no-small-batch": without("batches of 8 rows (32)", {"batch_size": 32}),
    "slower": adding("half the learning rate", {"optimizer.learning_rate": 0.0005}),
    "faster": adding("twice the learning rate", {"optimizer.learning_rate": 0.002}),
    "end-rate": adding(
        "masking 40 % to 15 %", {"masking.rate": 0.4, "masking.end_rate": 0.15}
    ),
    "average": adding("a moving average of the weights", {"average": 0.999}),
    "z-loss": adding("z-loss", {"z_loss": 1e-4}),
    "lengths": adding(
        "64 tokens a row at first",
        {"phases.shares": (0.2, 0.4, 0.4), "phases.causal": ("true", "false", "false"),
         "phases.lengths": (64, 64, 128), "phases.batch_sizes": (16, 16, 8)},
    ),
    "batch-ramp": adding(
        "32 rows a step at the end",
        {"phases.shares": (0.2, 0.5, 0.3), "phases.causal": ("true", "false", "false"),
         "phases.batch_sizes": (8, 8, 32)},
    ),
    "muon": adding("Muon, 32 rows a step", {"optimizer.name": "muon", "batch_size": 32}),
}  # fmt: skip
