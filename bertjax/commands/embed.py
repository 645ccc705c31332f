"""`bertjax embed`: one vector for every text."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import whole_number
from bertjax.commands.model_options import add_engine, add_model, open_model
from bertjax.commands.screen import count_on, tell
from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, whole_file
from bertjax.program.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from bertjax.interop.sentence_transformers import SentenceModel

# As `inference.embedding.Pooling`, which takes seconds to import.
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

SUMMARY = "one vector for every text, into an .npy or .parquet file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
    add_engine(parser)
    add_texts(parser, pairs=False, keep_empty=True)
    parser.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help="an .npy file (float32 [texts, D], in the order of the texts), or .parquet (columns"
        " text and embedding) (required)",
    )
    add_vector_options(parser, "longer ones are cut")


def add_vector_options(
    parser: "argparse.ArgumentParser | argparse._ArgumentGroup", of_longest: str
) -> None:
    """Adds the options of `inference.embedding.choose_steps`.

    Args:
        parser: the parser, or a group of it.
        of_longest: what the longest text is for.
    """
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=POOLINGS,
        help="how the hidden states of a text's tokens become a vector; several are concatenated"
        " (default: what modules.json or 1_Pooling of a sentence-transformers directory says, else"
        " mean)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale every vector to length 1 (default: as modules.json says, else no)",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(3),
        help=f"longest text in tokens; {of_longest} (default: what a sentence-transformers"
        " directory says, else the model's max_position_embeddings)",
    )


def run(options: argparse.Namespace) -> None:
    """Embeds and writes."""
    output = Path(options.output)
    if output.suffix not in (".npy", ".parquet"):
        raise UserError(f"--output {output}: name an .npy or a .parquet file")
    check_output(options.output, inputs=options.input)
    # An empty text keeps its place, so that vectors stay beside their lines.
    given = Texts(
        choose_reading(options, options.model),
        options.texts,
        options.input,
        pairs=False,
        keep_empty=True,
    )
    texts = [str(text) for _, text in given]
    if not any(texts):
        raise given.no_text()
    from bertjax.architectures import BODY
    from bertjax.inference.embedding import choose_steps, embed

    model = open_model(options, BODY)
    steps = choose_steps(model, options.pooling, options.normalize, options.max_length)
    said, most = model.sentence_model, model.config.max_length
    with count_on("embedding", len(texts)) as progress:
        vectors, notes = embed(model, texts, steps, progress)
    tell([*said.notes, *_describe(said, steps, most), *notes])
    _write(output, texts, vectors)
    print(
        f"{output}: {counted(vectors.shape[0], 'vector')} of {vectors.shape[1]} numbers",
        file=sys.stderr,
    )


def _describe(said: "SentenceModel", steps: "SentenceModel", most: int) -> list[str]:
    """Describes how vectors are made, and which options differ from what the directory says."""
    notes = []
    if said.max_length is not None and steps.max_length != min(said.max_length, most):
        notes.append(
            f"--max-length {steps.max_length}, where the directory says"
            f" {min(said.max_length, most)}"
        )
    if said.is_told and steps.pooling != said.pooling:
        notes.append(
            f"--pooling {' '.join(steps.pooling)}, where the directory says"
            f" {' '.join(said.pooling)}"
        )
    if said.is_told and steps.scales != said.scales:
        notes.append(
            f"--{'no-' * said.scales}normalize, where the directory"
            f" {'scales vectors to length 1' if said.scales else 'leaves vectors as they are'}"
        )
    names = "".join(f", {step.name}" for step in steps.after)
    notes.append(
        f"{' and '.join(steps.pooling)} of the tokens{names}; texts of up to {steps.max_length}"
        " tokens"
    )
    return notes


def _write(output: Path, texts: list[str], vectors: "np.ndarray[Any, Any]") -> None:
    import numpy as np

    with whole_file(output) as aside:
        if output.suffix == ".npy":
            np.save(aside, vectors)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(vectors.reshape(-1))
        table = pa.table(
            {
                "text": texts,
                "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )
        with aside.open("wb") as file:  # pyarrow takes no name that is not UTF-8
            pq.write_table(table, file)
