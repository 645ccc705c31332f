"""What a pretraining run measures of itself: held-out rows, and its heads where that is asked."""

import time
from collections.abc import Callable
from typing import Any

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.text.rows import PreparedDirectory
from bertjax.training.curves import CurvesDrawer
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.processes import gather, is_first
from bertjax.training.progress import describe_scores
from bertjax.training.session import Session
from bertjax.training.state import TrainState

# Scores parameters on the first so many rows of a split (0 = all); see `make_evaluation`.
Evaluate = Callable[[Any, Any, int], tuple[dict[str, float], float]]


def make_validation(
    config: PretrainConfig,
    bert_config: BertConfig,
    prepared: PreparedDirectory,
    evaluate: Evaluate,
    session: Session,
    curves: CurvesDrawer,
    look_inside: Callable[[TrainState], None],
) -> Callable[[TrainState], bool]:
    """Returns what scores the validation split, and keeps the model with the lowest loss so far."""
    run, metrics = session.run, session.metrics
    session.remembered.setdefault("best", float("inf"))

    def validate(state: TrainState) -> bool:
        step = int(state.step)
        scores, seconds = evaluate(state.params, prepared.validation, config.evaluation.rows)
        metrics.write(step, "validation", scores, {"seconds": seconds})
        session.say(f"step {step}: validation {describe_scores(scores)}")
        if is_first():
            curves.draw(at_once=False)
        look_inside(state)
        if scores["loss"] < session.remembered["best"]:
            session.remembered["best"] = scores["loss"]
            params = gather(state.params)
            if is_first():
                save_model_directory(run / "model", bert_config, params, prepared.tokenizer_path)
            session.keep(state, scores["loss"])
        return False

    return validate


class LookInside:
    """Measures the model's heads while it trains, where the config asks for it."""

    def __init__(
        self,
        config: PretrainConfig,
        bert_config: BertConfig,
        prepared: PreparedDirectory,
        session: Session,
        make_development: Callable[..., Any] | None,
    ) -> None:
        self._wanted, self._session = bool(config.development.examples), session
        self._development = None
        if self._wanted and is_first():
            self._development = make_development(
                config.development, bert_config, prepared.tokenizer_path, prepared.validation,
                session.run,
            )  # fmt: skip

    def __call__(self, state: TrainState) -> None:
        """Measures a state: all processes take part, the first writes."""
        params = gather(state.params) if self._wanted else None
        if self._development:
            started = time.perf_counter()
            figures = self._development.measure(params)
            timing = {"seconds": time.perf_counter() - started}
            self._session.metrics.write(int(state.step), "analysis", figures, timing)

    def draw(self) -> None:
        """Draws what all of the run's measurements show."""
        if self._development:
            run = self._session.run
            lines = read_metrics(run / "metrics.jsonl")
            of_heads = [line for line in lines if line["split"] == "analysis"]
            self._development.draw(of_heads, run / "development.png")
            self._session.say(f"heads      {run / 'development.png'}")
