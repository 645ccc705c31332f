"""BERTology while a model trains: when do positional heads appear, when syntactic ones?

At every evaluation, `bertjax pretrain` measures a few cheap figures of the model, on the same
texts each time. They are saved in `metrics.jsonl`, in lines of the split "analysis", and
`development.png` draws them over the steps.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.heads.classes import CLASSES, classify
from bertjax.analysis.heads.patterns import Tally, measure_patterns
from bertjax.analysis.layers.similarity import compare_layers
from bertjax.analysis.probes.syntax import SyntaxCounts, count_syntax
from bertjax.analysis.probes.treebank import (
    EncodedTreebank,
    encode_treebank,
    read_treebank,
    split_halves,
)
from bertjax.architectures import PRETRAINING, find_architecture
from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import Model, load
from bertjax.program.outputs import whole_file
from bertjax.text.rows import Rows
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.training.development_config import DevelopmentConfig

# For every layer, the mean over its heads.
BY_LAYER = ("entropy", "previous", "next", "sep")
# How many of the treebank's relations are followed, the most frequent first.
_MOST_RELATIONS = 8
_FEWEST_WORDS = 20


class Development:
    """Measurements of a model during training.

    Args:
        config: what is measured.
        bert_config: the model's.
        tokenizer_path: the directory of its tokenizer.
        rows: those of the validation split.
        folder: the run's; `first_model/` is saved there at the first measurement.
        architecture: the class that is pretrained, by its name or its kind.

    Raises:
        UserError: the treebank cannot be read.
    """

    def __init__(
        self,
        config: DevelopmentConfig,
        bert_config: BertConfig,
        tokenizer_path: Path,
        rows: Rows,
        folder: Path,
        architecture: str = PRETRAINING,
    ) -> None:
        tokenizer = load_tokenizer(tokenizer_path)
        self._config, self._tokenizer = bert_config, tokenizer
        self._architecture = find_architecture(architecture, bert_config)
        self._module = self._architecture.module(bert_config)
        self._tokenizer_path, self._folder = tokenizer_path, folder
        # A row has at least one example.
        some = rows[np.arange(min(config.examples, len(rows)))]
        self._texts = read_examples(tokenizer, some, config.examples)
        self._treebank: EncodedTreebank | None = None
        if config.treebank:
            sentences = read_treebank(config.treebank).sentences[: config.sentences]
            most = bert_config.max_length
            self._treebank = encode_treebank(tokenizer, sentences, most)

    def draw(self, lines: Sequence[Mapping[str, Any]], path: Path) -> None:
        """Draws the figures of all evaluations, see `draw_development`."""
        draw_development(lines, path)

    def measure(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Measures the model as it is.

        Args:
            params: those of the class that is pretrained.

        Returns:
            `entropy_0` and so on (name and layer); `heads_diagonal` and so on, the number of
            heads of each class; `cka_to_first`, the similarity of the last layer's hidden states to
            those of the first model; `best_nsubj` and so on, the accuracy of the best head.
        """
        body = Model(self._module, params, self._tokenizer)
        tallies = measure_patterns(body, self._texts)
        values = {
            f"{name}_{layer}": float(mean)
            for name in BY_LAYER
            for layer, mean in enumerate(_ratio(tallies[name]).mean(axis=1))
        }
        classes = classify(*(_ratio(tallies[name]) for name in ("vertical", "diagonal", "block")))
        values |= {
            f"heads_{name}": float((classes == number).sum()) for number, name in enumerate(CLASSES)
        }
        first = self._folder / "first_model"
        if not first.exists():
            save_model_directory(
                first, self._config, params, self._tokenizer_path, self._architecture.name
            )
        last = [self._config.num_hidden_layers]
        likeness = compare_layers(
            load(first, dtype="float32"), body, self._texts,
            first_layers=last, second_layers=last, folds=2,
        )  # fmt: skip
        values["cka_to_first"] = float(likeness.value[0, 0])
        if self._treebank:
            captures = capture(body, self._treebank.encoded)
            counts = count_syntax(captures, self._treebank.sentences)
            values |= best_head_accuracies(counts, self._treebank)
        return values


def read_examples(
    tokenizer: Tokenizer, rows: Mapping[str, np.ndarray], most: int
) -> list[EncodedText]:
    """Reads the first examples of a prepared directory's rows, as texts that can be captured.

    Their words are known from the tokens alone (`Tokenizer.continues_word`); characters are
    unknown, and the offsets are 0.

    Args:
        tokenizer: the rows' tokenizer.
        rows: the columns.
        most: the most examples.
    """
    result: list[EncodedText] = []
    for ids, types, sequences in zip(
        rows["token_ids"], rows["token_type_ids"], rows["sequence_ids"], strict=True
    ):
        for number in range(1, int(sequences.max(initial=0)) + 1):
            if len(result) == most:
                return result
            own = sequences == number
            result.append(_read_example(tokenizer, ids[own], types[own], len(result)))
    return result


def _read_example(
    tokenizer: Tokenizer, ids: np.ndarray, types: np.ndarray, source: int
) -> EncodedText:
    special = np.isin(ids, list(itertools.chain(*tokenizer.frame)))
    begins = ~tokenizer.continues_word[ids]
    begins[1:] |= special[:-1]  # a word begins after [CLS] or [SEP] whatever the token looks like
    word_ids = np.cumsum(begins) - 1
    words = tuple(
        str(tokenizer.token(ids[own][0])) if special[own][0] else tokenizer.decode(ids[own]).strip()
        for own in (word_ids == word for word in range(int(word_ids[-1]) + 1))
    )
    tokens = tuple(
        tokenizer.spell(id, begins_word=begins_word)
        for id, begins_word in zip(ids, begins, strict=True)
    )
    return EncodedText(
        np.asarray(ids, np.int64),
        np.asarray(types, np.int64),
        np.zeros((len(ids), 2), np.int64),
        special,
        word_ids,
        tokens,
        words,
        source,
        0,
    )


def best_head_accuracies(counts: SyntaxCounts, treebank: EncodedTreebank) -> dict[str, float]:
    """Computes the accuracy of the best head for each of the most frequent relations.

    The head is chosen on one half of the sentences and measured on the other, as in
    `syntax.relation_figures`.
    """
    choose, report = split_halves(treebank.sentences)
    chosen = counts.hits[choose].sum(axis=0)  # [2, R, L, N]
    words, hits = counts.words[report].sum(axis=0), counts.hits[report].sum(axis=0)
    frequent = [number for number in np.argsort(-words) if words[number] >= _FEWEST_WORDS]
    values = {}
    for number in frequent[:_MOST_RELATIONS]:
        way, layer, head = np.unravel_index(chosen[:, number].argmax(), chosen[:, number].shape)
        values[f"best_{counts.relations[number]}"] = float(
            hits[way, number, layer, head] / words[number]
        )
    return values


def draw_development(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws small multiples of the figures over the steps, as PNG.

    Args:
        lines: those of `metrics.jsonl` of the split "analysis".
        path: the picture, written whole.
    """
    from matplotlib.figure import Figure

    names = [name for name in lines[0] if name not in ("step", "split", "timing")]
    layers = sorted({int(name.rsplit("_", 1)[1]) for name in names if name.startswith("entropy_")})
    classes = [f"heads_{name}" for name in CLASSES]
    relations = [name for name in names if name.startswith("best_")]
    panels: list[tuple[str, str, dict[str, str]]] = [
        (name, unit, {f"{name}_{layer}": f"layer {layer}" for layer in layers})
        for name, unit in zip(
            BY_LAYER,
            ("nats", "share to the token before", "share to the token after", "share to [SEP]"),
            strict=True,
        )
    ]
    panels.append(
        (
            "classes",
            "heads",
            {name: name.removeprefix("heads_").replace("_", " ") for name in classes},
        )
    )
    panels.append(("similarity to the first model", "CKA of the last layer", {"cka_to_first": ""}))
    if relations:
        panels.append(
            ("best head", "accuracy", {name: name.removeprefix("best_") for name in relations})
        )
    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(10, 2.8 * rows), layout="constrained")
    steps = [line["step"] for line in lines]
    for number, (title, unit, series) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        colors = _colors(len(series))
        for color, (name, label) in zip(colors, series.items(), strict=True):
            values = [np.nan if line.get(name) is None else line[name] for line in lines]
            axes.plot(steps, values, color=color, marker=".", label=label)
        axes.set_title(title, loc="left")
        axes.set_ylabel(unit)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axes.legend(fontsize="x-small", ncols=2, frameon=False)
    with whole_file(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _colors(number: int) -> list[Any]:
    """Returns colours that colour-blind readers can distinguish, dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * place / max(1, number - 1)) for place in range(number)]


def _ratio(tally: Tally) -> np.ndarray:
    """Computes the figure of every head over all texts together."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return tally.sums.sum(axis=0) / tally.counts.sum(axis=0)
