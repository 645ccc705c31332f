"""The rows of a family's table of tensors: what each parameter is called, there and here."""

import dataclasses

# Embeddings and encoder; a part of `BertConfig.PARTS` is under its own name, the pooler within the
# body.
BODY_PATH = "bert/"
LAYERS_PATH = "bert/encoder/layers"


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor: its name and its axes on both sides.

    Axes are the letters of `bertjax.types`. `theirs_axes` has a group of letters for each axis, as
    `NH D` for a matrix of [N*H, D]; `D` on the output side of a square kernel is written `d`.
    A name with `{layer}` stands for L tensors, one for each of `config.distinct_layers`, which ours
    stacks: its axes lead with an L that is not written.

    Attributes:
        theirs: the name.
        ours: the path of the parameter; several with bars where theirs has them one after the other
            along its first axis.
        theirs_axes: of theirs, of one of `ours`.
        ours_axes: of ours.
        first_layer: the first layer that has the tensor; ours has one for every layer, and those
            before are not used.
    """

    theirs: str
    ours: str
    theirs_axes: str
    ours_axes: str
    first_layer: int = 0

    @property
    def is_stacked(self) -> bool:
        """Whether there is one tensor a layer."""
        return "{layer}" in self.theirs

    @property
    def paths(self) -> list[str]:
        """The paths of our parameters."""
        return self.ours.split("|")

    @property
    def part(self) -> str | None:
        """The part that this belongs to; None for embeddings and encoder."""
        if self.ours.startswith("bert/pooler/"):
            return "pooler"
        return None if self.ours.startswith(BODY_PATH) else self.ours.split("/")[0]


def layer_norm(theirs: str, ours: str, axis: str = "D", *, bias: bool = True) -> list[Row]:
    """Returns the rows of a LayerNorm over an axis."""
    rows = [Row(f"{theirs}.weight", f"{ours}/scale", axis, axis)]
    return rows + [Row(f"{theirs}.bias", f"{ours}/bias", axis, axis)] * bias


def dense(theirs: str, ours: str, inputs: str, outputs: str, *, bias: bool = True) -> list[Row]:
    """Returns the rows of a linear layer: torch's [outputs, inputs], our [*inputs, *outputs]."""
    rows = [Row(f"{theirs}.weight", f"{ours}/kernel", f"{outputs} {inputs}", inputs + outputs)]
    return rows + [Row(f"{theirs}.bias", f"{ours}/bias", outputs, outputs)] * bias


def classifier(theirs: str, part: str, outputs: str) -> list[Row]:
    """Returns the rows of a `ClassifierHead`; its normalisation is ours, transformers has none."""
    return [
        *layer_norm("classifier_norm", f"{part}/norm"),
        *dense(theirs, f"{part}/dense", "D", outputs),
    ]


def bert_embeddings(body: str, axis: str = "D") -> list[Row]:
    """Returns the rows of the embeddings as BERT's are called, in the body of that name."""
    theirs, ours = f"{body}.embeddings", "bert/embeddings"
    return [
        Row(f"{theirs}.word_embeddings.weight", f"{ours}/word_embeddings", f"V {axis}", f"V{axis}"),
        Row(
            f"{theirs}.position_embeddings.weight",
            f"{ours}/position_embeddings",
            f"M {axis}",
            f"M{axis}",
        ),
        Row(
            f"{theirs}.token_type_embeddings.weight",
            f"{ours}/token_type_embeddings",
            f"G {axis}",
            f"G{axis}",
        ),
        *layer_norm(f"{theirs}.LayerNorm", f"{ours}/layer_norm", axis),
    ]


def bert_layers(body: str) -> list[Row]:
    """Returns the rows of the encoder as BERT's are called, in the body of that name."""
    theirs, ours = f"{body}.encoder.layer.{{layer}}", LAYERS_PATH
    return [
        *dense(f"{theirs}.attention.self.query", f"{ours}/attention/query", "D", "NH"),
        *dense(f"{theirs}.attention.self.key", f"{ours}/attention/key", "D", "NH"),
        *dense(f"{theirs}.attention.self.value", f"{ours}/attention/value", "D", "NH"),
        *dense(f"{theirs}.attention.output.dense", f"{ours}/attention/output", "NH", "D"),
        *layer_norm(f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_layer_norm"),
        *dense(f"{theirs}.intermediate.dense", f"{ours}/intermediate", "D", "F"),
        *dense(f"{theirs}.output.dense", f"{ours}/output", "F", "D"),
        *layer_norm(f"{theirs}.output.LayerNorm", f"{ours}/output_layer_norm"),
    ]
