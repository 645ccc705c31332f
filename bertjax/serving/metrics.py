"""What a server counts, by the names of text-embeddings-inference where it has them."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bertjax.serving.engine import BatchRan
from bertjax.serving.served import Served, Spent

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

# After so many lines of the log each one counts 1 / LATEST in the running means of the gauges.
LATEST = 1000

# What jax calls the event of a compilation (jax._src.dispatch.BACKEND_COMPILE_EVENT).
COMPILATION = "/jax/core/compile/backend_compile_duration"


class Metrics:
    """The counters and histograms of a server.

    Attributes:
        registry: that holds them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("te_request_count", "calls by route", ["method"], **own)
        self.successes = Counter("te_request_success", "calls answered", ["method"], **own)
        self.failures = Counter("te_request_failure", "calls refused or failed", ["err"], **own)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(name, f"seconds, {what}", buckets=SECONDS, **own)

        self.duration = seconds("te_request_duration", "a call in all")
        self.tokenization = seconds("te_request_tokenization_duration", "of the tokenizer")
        self.queue = seconds("te_request_queue_duration", "in the queue")
        self.inference = seconds("te_request_inference_duration", "of the model")
        self.input_length = Histogram(
            "te_request_input_length", "tokens of a call", buckets=TOKENS, **own
        )
        self.queue_size = Gauge("te_queue_size", "texts that wait", **own)
        self.batch_size = Histogram("te_batch_next_size", "texts of a batch", buckets=TOKENS, **own)
        self.batch_tokens = Histogram(
            "te_batch_next_tokens", "tokens of a batch", buckets=TOKENS, **own
        )
        self.batch_fill = Histogram(
            "bertjax_batch_fill", "share of a batch that is no padding", buckets=SHARES, **own
        )
        self.batch_seconds = Histogram(
            "bertjax_batch_duration",
            "seconds of a batch",
            ["program"],
            buckets=SECONDS,
            **own,
        )
        self.models = Gauge(
            "bertjax_model",
            "1 for each model, with what runs it",
            ["model", "engine", "dtype"],
            **own,
        )
        self.compilations = Counter("bertjax_compilations", "programs that XLA compiled", **own)
        self.logged = Counter("bertjax_log_lines", "requests that were logged", **own)
        self.dropped = Counter(
            "bertjax_log_dropped", "requests that were to be logged, and could not be", **own
        )
        self.answers = Counter(
            "bertjax_logged_answers", "answers that were logged", ["model", "label"], **own
        )
        self.means = {
            field: Gauge(f"bertjax_logged_{name}", f"{what}: running mean", ["model"], **own)
            for field, name, what in (
                ("tokens", "input_tokens", "tokens of a text that was logged"),
                ("unknown", "unknown_words", "share of its words that the vocabulary has not"),
                ("confidence", "confidence", "probability of its answer"),
            )
        }
        self._lines: dict[tuple[str, str], int] = {}

    def set_models(self, models: Iterable[Served]) -> None:
        """Notes the models that are served, in the place of those that were."""
        self.models.clear()
        for served in models:
            model = served.model
            self.models.labels(served.name, model.engine, model.dtype).set(1)

    def watch_compilations(self) -> None:
        """Counts what XLA compiles in this process from now on."""
        compilations = self.compilations

        def count(event: str, seconds: float, **details: object) -> None:
            if event == COMPILATION:
                compilations.inc()

        jax.monitoring.register_event_duration_secs_listener(count)

    @property
    def compiled(self) -> int:
        """Returns how many programs XLA has compiled."""
        return int(self.compilations._value.get())

    def count_batch(self, ran: BatchRan) -> None:
        """Counts a batch that ran."""
        self.batch_size.observe(ran.sequences)
        self.batch_tokens.observe(ran.tokens)
        self.batch_fill.observe(ran.tokens / ran.places)
        self.batch_seconds.labels(ran.program).observe(ran.seconds)

    def count_call(self, method: str, spent: Spent, seconds: float, failure: str | None) -> None:
        """Counts a call that is over; `failure` is its reason, None of one that was answered."""
        self.requests.labels(method).inc()
        self.duration.observe(seconds)
        if failure:
            self.failures.labels(failure).inc()
            return
        self.successes.labels(method).inc()
        if spent.tokens:
            self.tokenization.observe(spent.tokenization)
            self.queue.observe(spent.queue)
            self.inference.observe(spent.inference)
            self.input_length.observe(spent.tokens)

    def count_line(self, line: Mapping[str, Any] | None) -> None:
        """Counts a line of the log that was written; None for one that was dropped."""
        if line is None:
            self.dropped.inc()
            return
        model = line["model"]
        for label, share in (line["labels"] or {}).items():
            self.answers.labels(model, label).inc(share)
        for field, gauge in self.means.items():
            if line[field] is not None:
                number = self._lines[model, field] = self._lines.get((model, field), 0) + 1
                mean = gauge.labels(model)
                mean.inc((line[field] - mean._value.get()) / min(number, LATEST))
        self.logged.inc()

    def text(self) -> bytes:
        """Returns all of them in Prometheus' format."""
        return generate_latest(self.registry)
