"""The curves of a pretraining run, drawn while it runs."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.pictures import Panel, draw_panels, series_of
from bertjax.training.metrics import read_metrics

# Drawing takes a part of a second, and a run of minutes has none to give: at most this share.
_SHARE_OF_TIME = 0.02


class CurvesDrawer:
    """Draws `curves.png` of a run directory anew, as often as that costs little.

    Attributes:
        notes: why it could not be drawn the last time; none when it could.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._drawn = 0.0
        self._took = 0.0
        self.notes: list[str] = []

    def draw(self, at_once: bool = True) -> None:
        """Draws what metrics.jsonl has; unless `at_once`, only if the last time is long enough
        past.
        """
        began = time.monotonic()
        if not at_once and (began - self._drawn) * _SHARE_OF_TIME < self._took:
            return
        lines = read_metrics(self._run / "metrics.jsonl")
        self.notes = draw_pretraining_curves(self._run / "curves.png", lines)
        self._drawn = time.monotonic()
        self._took = self._drawn - began


def draw_pretraining_curves(path: Path, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draws the loss of the masked words, how many are right, next sentences, the learning rate.

    With replaced tokens the masked words are the generator's, and the discriminator's loss and
    accuracies come first.

    Beside them stand what a model reaches that knows only how frequent each token is (unigram), or
    how many are replaced, and chance. Training masks another share of the tokens than validation
    does, so their losses differ.

    Args:
        path: of the picture.
        lines: of metrics.jsonl.

    Returns:
        A note when it could not be drawn.
    """
    train = [line for line in lines if line["split"] == "train"]
    validation = [line for line in lines if line["split"] == "validation"]
    replay = [line for line in lines if line["split"] == "replay_validation"]
    newest = validation[-1] if validation else {}
    # With one objective its loss is the loss.
    name = "mlm_loss" if any("mlm_loss" in line for line in train) else "loss"
    losses = [
        series_of(train, name, "training"),
        series_of(validation, "mlm_loss", "validation"),
        *[series_of(replay, "mlm_loss", "replay")] * bool(replay),
    ]
    right = [
        series_of(validation, "mlm_accuracy", "validation"),
        *[series_of(replay, "mlm_accuracy", "replay")] * bool(replay),
    ]
    panels = [
        *_discriminator_panels(train, validation),
        Panel("masked-LM loss", losses, _baseline(newest, "unigram_loss")),
        Panel("masked accuracy", right, _baseline(newest, "unigram_accuracy")),
    ]
    if newest.get("examples"):
        next_sentence = series_of(validation, "nsp_accuracy", "validation")
        panels.append(Panel("next-sentence accuracy", [next_sentence], {"chance": 0.5}))
    panels.append(Panel("learning rate", [series_of(train, "learning_rate")]))
    return draw_panels(path, panels)


def _discriminator_panels(
    train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
) -> list[Panel]:
    if not any("replaced_loss" in line for line in train):
        return []
    losses = [
        series_of(train, "replaced_loss", "training"),
        series_of(validation, "replaced_loss", "validation"),
        series_of(validation, "by_frequency_loss", "validation, by frequency"),
        series_of(validation, "share_loss", "the share alone"),
    ]
    accuracies = [
        series_of(validation, "replaced_accuracy", "of replaced tokens"),
        series_of(validation, "original_accuracy", "of original tokens"),
    ]
    return [Panel("replaced-token loss", losses), Panel("found", accuracies)]


def _baseline(line: Mapping[str, Any], name: str) -> dict[str, float]:
    return {"unigram": line[name]} if line.get(name) is not None else {}
