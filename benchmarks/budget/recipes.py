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


RECIPES: dict[str, Ours | Torch] = {
    # Source: transformers' examples/pytorch/language-modeling/run_mlm.py and its defaults:
    # AdamW at 5e-5, no weight decay, no warm-up, 8 rows, 15 % of the tokens, dropout 0.1, float32.
    "run_mlm": Torch("torch, run_mlm.py's recipe", "bert", 5e-5),
    "torch": Torch(
        "torch, our recipe", "modernbert", 1e-3, (0.9, 0.98), 0.01, warmup=0.2,
        rates=(0.25, 0.25), dropout=0.0, dtype="auto",
    ),
    "textbooks": Ours("textbooks.yaml", "textbooks", pairs=True, fields={"dtype": "float32"}),
    "textbooks-auto": Ours("textbooks.yaml, dtype auto", "textbooks", pairs=True),
    "minutes": Ours("minutes.yaml", "minutes"),
}  # fmt: skip
