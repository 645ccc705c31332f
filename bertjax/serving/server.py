"""A server: its models, and what runs them."""

import threading
from collections.abc import Callable, Mapping

import jax

from bertjax.inference.exported import load_exported
from bertjax.loaded import Model, load
from bertjax.program.errors import UserError
from bertjax.serving.engine import ClosingError, Engine
from bertjax.serving.metrics import Metrics
from bertjax.serving.problems import (
    BACKEND,
    CONFLICT,
    NOT_FOUND,
    UNHEALTHY,
    VALIDATION,
    RefusedError,
)
from bertjax.serving.request_log import RequestLog
from bertjax.serving.served import Served
from bertjax.serving.settings import ServeConfig
from bertjax.serving.threads import Threads
from bertjax.text.workers import count_cores


class Server:
    """The models that are served.

    Args:
        models: by the names by which calls name them; the first answers calls that name none.
        config: its settings.
        log: of requests and answers, which it closes; none when left out.
    """

    def __init__(
        self, models: Mapping[str, Model], config: ServeConfig, log: RequestLog | None = None
    ) -> None:
        self.config, self.metrics, self.log = config, Metrics(), log
        if log:
            log.start(self.metrics.count_line)
        exported = all(model.is_exported for model in models.values())
        self.devices = tuple(jax.local_devices(backend="cpu" if exported else None))
        if self.devices[0].platform == "cpu":
            self.devices = self.devices[:1]
        self.tokenization_workers = config.tokenization_workers or count_cores()
        self._threads = Threads(self.tokenization_workers)
        self.engine = Engine(
            self.devices,
            most_waiting=config.max_concurrent_requests,
            wait=config.max_batch_wait_ms / 1e3,
            watch=self.metrics.count_batch,
        )
        self.metrics.watch_compilations()
        try:
            self.models = {name: self._serve(name, model) for name, model in models.items()}
            self.metrics.set_models(self.models.values())
        except BaseException:
            self.close()  # whose threads would keep the process
            raise
        self.is_ending = False
        self.is_ready, self._reloading = threading.Event(), threading.Lock()

    def _serve(self, name: str, model: Model, before: Served | None = None) -> Served:
        return Served(
            name,
            model,
            self.engine,
            self._threads,
            self.config,
            self.devices,
            before,
            observed=self.log is not None,
        )

    def warm_up(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Compiles whatever a call can need.

        Args:
            progress: is called with the number of shapes done since the call before, of all
                `Served.shapes`.

        Raises:
            ClosingError: the server ends.
        """
        for served in self.models.values():
            served.warm_up(self._unless_ending(progress))
        self.is_ready.set()

    def _unless_ending(self, progress: Callable[[int], None]) -> Callable[[int], None]:
        def go_on(done: int) -> None:
            progress(done)
            if self.is_ending:
                raise ClosingError

        return go_on

    def reload(self, name: str) -> Served:
        """Puts the model that its directory has now in the place of the one that is served.

        Calls that the old one has taken are answered by it. The new one may be of another class, or
        of another family.

        Raises:
            RefusedError: there is none of this name, it is being reloaded, or its directory has no
                model that can be served.
            ClosingError: the server ends.
        """
        before = self.model(name)
        if not self._reloading.acquire(blocking=False):
            raise RefusedError(
                CONFLICT, "a model is being reloaded; try again", {"retry-after": "5"}
            )
        try:
            model = before.model
            if model.is_exported:
                fresh = load_exported(model.directory)
            else:
                fresh = load(
                    model.directory,
                    dtype=model.dtype,
                    attention=model.module.attention,
                )
            served = self._serve(name, fresh, before)
            served.warm_up(self._unless_ending(lambda done: None))
        except UserError as error:
            raise RefusedError(BACKEND, f"the model {name} stays as it was: {error}") from None
        finally:
            self._reloading.release()
        self.models[name] = served
        self.metrics.set_models(self.models.values())
        return served

    def model(self, name: str | None = None) -> Served:
        """Returns the model that a call names, or the first.

        Raises:
            RefusedError: there is none of this name, or it is not ready.
        """
        if not self.is_ready.is_set():
            raise RefusedError(UNHEALTHY, "the model is not ready yet", {"retry-after": "5"})
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise RefusedError(
                NOT_FOUND, f"`model` {name!r} is not served here; {', '.join(self.models)}"
            )
        return self.models[name]

    def check_count(self, texts: int, field: str = "inputs") -> None:
        """Raises a `RefusedError` where a call has more texts than one may have."""
        if texts > self.config.max_client_batch_size:
            raise RefusedError(
                VALIDATION,
                f"`{field}` has {texts} texts, and a call may have"
                f" {self.config.max_client_batch_size} (--max-client-batch-size)",
            )

    def close(self) -> None:
        """Finishes what was taken, and ends the threads."""
        self.engine.close()
        self._threads.close()
        if self.log:
            self.log.close()
