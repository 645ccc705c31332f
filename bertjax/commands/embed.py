"""`bertjax embed`: one vector for every text."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length, whole_number
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import count_on, tell
from bertjax.commands.texts import Texts, add_texts, choose_reading
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, whole_file
from bertjax.program.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from bertjax.config import BertConfig
    from bertjax.interop.sentence_transformers import SentenceModel

# As `inference.embedding.Pooling`, which takes seconds to import.
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

SUMMARY = "one vector for every text, into an .npy or .parquet file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
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
        nargs="+",
        choices=POOLINGS,
        help="what is made of the hidden states of a text's tokens; several are put side by side"
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
        help="longest text in tokens; longer ones are cut (default: what a sentence-transformers"
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
    from bertjax.inference.embedding import Embedder
    from bertjax.interop.sentence_transformers import read_sentence_model

    said = read_sentence_model(options.model)
    model = open_model(options, BODY.name)
    wanted, told = _choose(options, said, model.config)
    tokenizer = model.tokenizer
    embedder = Embedder(
        model.module,
        model.params,
        tokenizer.lowercased() if said.lowercase else tokenizer,
        wanted.pooling,
        wanted.after,
    )
    with count_on("embedding", len(texts)) as progress:
        prompted = [said.prompt + text for text in texts]
        vectors, notes = embedder.embed(prompted, wanted.max_length, progress)
    if empty := texts.count(""):
        empties = (
            f"{empty:,} of {len(texts):,} texts are empty; their vectors are those of [CLS] [SEP]"
        )
        notes = [*notes, empties]
    tell([*said.notes, *told, *notes])
    _write(output, texts, vectors)
    print(
        f"{output}: {counted(vectors.shape[0], 'vector')} of {vectors.shape[1]} numbers",
        file=sys.stderr,
    )


def _choose(
    options: argparse.Namespace, said: "SentenceModel", config: "BertConfig"
) -> tuple["SentenceModel", list[str]]:
    """What the directory says, the options before it; and what there is to tell of it."""
    from bertjax.interop.sentence_transformers import Dense, Normalize

    most, told = config.max_position_embeddings, []
    length = most if said.max_length is None else min(said.max_length, most)
    chosen = choose_length(options, most, length, least=3)
    if said.max_length is not None and chosen != length:
        told.append(f"--max-length {chosen}, where the directory says {length}")
    pooling, after = said.pooling, said.after
    if options.pooling is not None:
        pooling = tuple(options.pooling)
        if said.is_told and pooling != said.pooling:
            told.append(
                f"--pooling {' '.join(pooling)}, where the directory says {' '.join(said.pooling)}"
            )
    scales = bool(after) and isinstance(after[-1], Normalize)
    if options.normalize is True and not scales:
        after = (*after, Normalize())
    elif options.normalize is False and scales:
        after = after[:-1]
    if said.is_told and after != said.after:
        told.append(
            f"--{'no-' * scales}normalize, where the directory"
            f" {'scales vectors to length 1' if scales else 'leaves vectors as they are'}"
        )
    width = len(pooling) * config.hidden_size
    for step in after:
        if isinstance(step, Dense):
            if width != step.weight.shape[1]:
                raise UserError(
                    f"{options.model}: a Dense module takes {step.weight.shape[1]} numbers, and"
                    f" {' and '.join(pooling)} of hidden states of {config.hidden_size} give"
                    f" {width}"
                )
            width = len(step.weight)
    steps = "".join(f", {step.name}" for step in after)
    told.append(f"{' and '.join(pooling)} of the tokens{steps}; texts of up to {chosen} tokens")
    return said._replace(pooling=pooling, after=after, max_length=chosen), told


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
