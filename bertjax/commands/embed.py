"""`bertjax embed`: one vector for every text."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import whole_number
from bertjax.commands.screen import count_on
from bertjax.commands.texts import Texts, add_texts
from bertjax.errors import UserError
from bertjax.program.outputs import check_output, whole_file
from bertjax.wording import counted

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "one vector for every text, into an .npy or .parquet file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="a model directory (required)"
    )
    add_texts(parser, pairs=False, keep_empty=True)
    parser.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help="an .npy file (float32 [texts, D], in the order of the texts), or .parquet (columns"
        " text and embedding) (required)",
    )
    parser.add_argument(
        "--pooling",
        choices=["mean", "cls"],
        default="mean",
        help="mean over the tokens of a text, or the hidden state of [CLS] (default: %(default)s)",
    )
    parser.add_argument(
        "--normalize", action="store_true", help="scale every vector to length 1 (default: no)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the matrix products; bfloat16 is faster where the processor has it, and vectors"
        " differ by about a hundredth of their length (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(3),
        help="longest text in tokens; longer ones are cut (default: the model's"
        " max_position_embeddings)",
    )


def run(options: argparse.Namespace) -> None:
    """Embeds and writes."""
    output = Path(options.output)
    if output.suffix not in (".npy", ".parquet"):
        raise UserError(f"--output {output}: name an .npy or a .parquet file")
    check_output(options.output)
    # An empty text keeps its place, so that vectors stay beside their lines.
    given = Texts(options, options.texts, options.input, pairs=False, keep_empty=True)
    texts = [str(text) for _, text in given]
    if not any(texts):
        raise given.no_text()
    from bertjax.interop.huggingface import load_model_directory, load_model_tokenizer
    from bertjax.model.bert import BertModel
    from bertjax.tasks.embedding import Embedder

    loaded = load_model_directory(options.model, "BertModel", may_lack=("pooler",))
    body = {name: part for name, part in loaded.params["bert"].items() if name != "pooler"}
    most = loaded.config.max_position_embeddings
    length = most if options.max_length is None else options.max_length
    if not 3 <= length <= most:
        raise UserError(
            f"--max-length {length} must lie between 3 and the model's {most} positions"
        )
    tokenizer, more = load_model_tokenizer(options.model, loaded.config)
    embedder = Embedder(
        BertModel(loaded.config, options.dtype, pooling=False),
        body,
        tokenizer,
        options.pooling,
        options.normalize,
    )
    with count_on("embedding", len(texts)) as progress:
        vectors, notes = embedder.embed(texts, length, progress)
    if empty := texts.count(""):
        said = (
            f"{empty:,} of {len(texts):,} texts are empty; their vectors are those of [CLS] [SEP]"
        )
        notes = [*notes, said]
    for note in [*loaded.notes, *more, *notes]:
        print(note, file=sys.stderr)
    _write(output, texts, vectors)
    print(
        f"{output}: {counted(vectors.shape[0], 'vector')} of {vectors.shape[1]} numbers",
        file=sys.stderr,
    )


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
