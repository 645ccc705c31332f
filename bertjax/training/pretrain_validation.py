"""What a pretraining run measures of itself: held-out rows, and its heads where that is asked."""

import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from bertjax.config import BertConfig, Kind
from bertjax.objectives.replaced_tokens import GeneratorAndDiscriminator
from bertjax.program.wording import counted
from bertjax.text.rows import PreparedDirectory
from bertjax.training.curves import CurvesDrawer
from bertjax.training.evaluation import MIN_GAIN, EvaluationConfig
from bertjax.training.generator_directory import save_pretrained
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.processes import gather, is_first
from bertjax.training.progress import describe_scores
from bertjax.training.session import Session
from bertjax.training.state import TrainState

# Scores parameters on the first so many rows of a split (0 = all); see `make_evaluation`.
Evaluate = Callable[..., tuple[dict[str, float], float]]


class Patience:
    """Whether a run still gains, by its validation losses so far.

    Args:
        config: what a gain is, and how long one is waited for.
        remembered: what is saved beside every checkpoint, where the losses go.
    """

    def __init__(self, config: EvaluationConfig, remembered: dict[str, Any]) -> None:
        self._patience, self._remembered = config.patience, remembered
        self._min_gain = MIN_GAIN if config.min_gain is None else config.min_gain
        unknown = {"best": float("inf"), "gained": float("inf"), "unimproved": 0}
        remembered.update(unknown | remembered)

    def is_best(self, loss: float) -> bool:
        """Takes the next loss; returns whether it is the lowest."""
        known = self._remembered
        if loss < known["gained"] and loss <= known["gained"] - self._min_gain:
            known |= {"gained": loss, "unimproved": 0}
        else:
            known["unimproved"] += 1
        is_best = loss < known["best"]
        if is_best:
            known["best"] = loss
        return is_best

    @property
    def reason(self) -> str | None:
        """Why the run ends before its budget does; None where it does not."""
        unimproved = self._remembered["unimproved"]
        if not 0 < self._patience <= unimproved:
            return None
        return (
            f"no gain of {self._min_gain:g} nats in {counted(unimproved, 'evaluation')}"
            f" (evaluation.patience={self._patience})"
        )


class Validation:
    """Scores the held-out rows, and keeps the model with the lowest loss so far.

    Where there is a replay its rows are scored, too; they choose nothing.
    """

    def __init__(
        self,
        config: PretrainConfig,
        model: nn.Module | GeneratorAndDiscriminator,
        prepared: PreparedDirectory,
        replay: PreparedDirectory | None,
        evaluate: Evaluate,
        session: Session,
        curves: CurvesDrawer,
        look_inside: Callable[[TrainState], None],
        patience: Patience,
    ) -> None:
        self._rows, self._model = config.evaluation.rows, model
        self._prepared, self._replay = prepared, replay
        self._evaluate, self._session = evaluate, session
        self._curves, self._look_inside, self._patience = curves, look_inside, patience

    def __call__(self, state: TrainState) -> bool:
        """Scores a state, and keeps it if it is the best; returns whether the run ends here."""
        session, step = self._session, int(state.step)
        loss = self.score(state.model_params, step, "validation", self._rows, f"step {step}: ")
        if is_first():
            self._curves.draw(at_once=False)
        self._look_inside(state)
        if self._patience.is_best(loss):
            params = gather(state.model_params)
            if is_first():
                save_pretrained(
                    session.run / "model", self._model, params, self._prepared.tokenizer_path
                )
            session.keep(state, loss)
        if self._patience.reason:
            session.say(f"step {step}: {self._patience.reason}: the run ends here")
        return self._patience.reason is not None

    def begin(self, state: TrainState) -> None:
        """Scores the model as it was, on the test split, too: what there is to gain and lose."""
        self.score(state.model_params, 0, "test", 0, "step 0: ")
        self(state)

    def score(self, params: Any, step: int, split: str, limit: int, when: str = "") -> float:
        """Scores a held-out split, and that of the replay; writes and says what comes of it.

        Args:
            params: of the model.
            step: of the run.
            split: validation or test.
            limit: how many rows of it; 0 = all.
            when: what is said before the scores.

        Returns:
            The loss on the first.
        """
        losses = []
        for name, its in {split: self._prepared, f"replay_{split}": self._replay}.items():
            if its is not None:
                rows = getattr(its, split)
                scores, seconds = self._evaluate(params, rows, limit, its.token_counts)
                timing = {"seconds": seconds, "seconds_of_training": self._session.clock.seconds}
                self._session.metrics.write(step, name, scores, timing)
                shown = name.replace("_", " ")
                self._session.say(f"{when}{shown} {describe_scores(scores)}")
                losses.append(scores["loss"])
        return losses[0]


class LookInside:
    """Measures the model's heads while it trains, where the config asks for it."""

    def __init__(
        self,
        config: PretrainConfig,
        bert_config: BertConfig,
        kind: Kind,
        prepared: PreparedDirectory,
        session: Session,
        make_development: Callable[..., Any] | None,
    ) -> None:
        self._wanted, self._session = bool(config.development.examples), session
        self._development = None
        if self._wanted and is_first():
            self._development = make_development(
                config.development, bert_config, prepared.tokenizer_path, prepared.validation,
                session.run, kind,
            )  # fmt: skip

    def __call__(self, state: TrainState) -> None:
        """Measures a state: all processes take part, the first writes."""
        params = gather(state.model_params) if self._wanted else None
        if self._development:
            started = time.perf_counter()
            figures = self._development.measure(params.get("discriminator", params))
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
