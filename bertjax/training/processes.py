"""Several processes train one model together: how they find each other, and what they agree on.

Every process runs the same program on the same config and sees its own devices; arrays that live on
the devices of all are reached through XLA's collectives. What is on disk is written by the first
process alone (Orbax's checkpoints excepted, of which each writes its part), so that the directory
of the run must be one that all of them see.
"""

import collections
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.program.errors import USER_ERROR_EXIT_CODE, UserError, complain, describe_os_error
from bertjax.training.budget import Clock
from bertjax.training.signals import StopRequest

# EX_PROTOCOL of sysexits.h: another process went; this one is whole.
LOST_EXIT_CODE = 76
# A process that says nothing for so long is given up: the others end.
HEARTBEAT_SECONDS = 60
# Steps that the host may run ahead of what the processes have agreed on.
LAG = 2

# jax's own: host:port of process 0. With the next two, which jax does not know, it names the
# processes where no cluster does.
ADDRESS_VARIABLE = "JAX_COORDINATOR_ADDRESS"
COUNT_VARIABLE, INDEX_VARIABLE = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# By which a process knows how many were started together. SLURM_NTASKS counts a whole job,
# one process of which may run alone.
_COUNTS = (COUNT_VARIABLE, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_MOST_SENT = 4096  # bytes of a message from the first process
# What is in the message of a collective, or of the coordination service, when a process has gone.
_SIGNS_OF_LOSS = ("gloo", "connection", "unavailable", "heartbeat", "coordination", "nccl")


@contextlib.contextmanager
def joined(distributed: bool) -> Iterator[None]:
    """Makes this process one of several while entered, if `distributed`.

    They find each other by the variables that `train/launch/local.sh` sets, or else as jax detects
    it: SLURM, Kubernetes, TPU pods, Open MPI. A process that fails ends at once: the others, which
    wait for it in a collective, learn of the closed connection, or after `HEARTBEAT_SECONDS` of its
    silence.

    Raises:
        UserError: there is nothing to find the others by.
    """
    if not distributed:
        yield
        return
    _join()
    with _standard_output_for_python_alone():
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            # Python's own end would wait for the others, which wait for this one.
            code = _tell(error)
            with contextlib.suppress(OSError):  # nobody reads it, or there is no room
                sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    jax.distributed.shutdown()


@contextlib.contextmanager
def _standard_output_for_python_alone() -> Iterator[None]:
    """Sends what libraries write on standard output to standard error while entered.

    Gloo greets there, whenever processes form a group; beside it nobody could read `--json`.
    """
    before = sys.stdout
    before.flush()
    with open(os.dup(1), "w", encoding=before.encoding) as own:
        sys.stdout = own
        os.dup2(2, 1)
        try:
            yield
        finally:
            sys.stdout = before
            os.dup2(own.fileno(), 1)


def _join() -> None:
    named: dict[str, Any] = {}
    address = os.environ.get(ADDRESS_VARIABLE)
    # jax ends with a signal where it cannot make sense of one.
    if address and not re.fullmatch(r".+:\d{1,5}", address):
        raise UserError(
            f"{ADDRESS_VARIABLE}={address} must be host and port of process 0, as 10.0.0.1:8482"
        )
    if COUNT_VARIABLE in os.environ or INDEX_VARIABLE in os.environ:
        names = (ADDRESS_VARIABLE, COUNT_VARIABLE, INDEX_VARIABLE)
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise UserError(f"--distributed: {' and '.join(missing)} must be set, too")
        named = {
            "num_processes": _read_number(COUNT_VARIABLE),
            "process_id": _read_number(INDEX_VARIABLE),
            "cluster_detection_method": "deactivate",
        }
    # It takes SIGTERM for itself, and knows nothing of SIGINT: `Agreement` sees to both.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **named)
    except ValueError as error:
        raise UserError(
            f"--distributed: cannot find the other processes ({error}). Start them with"
            f" train/launch/local.sh, on SLURM, Kubernetes, a TPU pod or under Open MPI, or set"
            f" {ADDRESS_VARIABLE}=HOST:PORT of process 0, {COUNT_VARIABLE} and"
            f" {INDEX_VARIABLE}"
        ) from None


def _tell(error: BaseException) -> int:
    """Reports what ends this process; returns the exit code."""
    who = f"process {jax.process_index()} of {jax.process_count()}"
    if isinstance(error, UserError):
        complain(f"{who}: {error}")
        return USER_ERROR_EXIT_CODE
    if isinstance(error, OSError):
        complain(f"{who}: {describe_os_error(error)}")
        return USER_ERROR_EXIT_CODE
    if isinstance(error, KeyboardInterrupt):
        print(f"{who}: interrupted", file=sys.stderr)
        return 130
    why = " ".join(str(error).split())
    if isinstance(error, jax.errors.JaxRuntimeError) and any(
        sign in why.lower() for sign in _SIGNS_OF_LOSS
    ):
        complain(
            f"{who}: another process went ({why[:200]}). Look into its output for the reason; the"
            " same command, on as many processes or fewer, continues from the newest checkpoint"
        )
        return LOST_EXIT_CODE
    print(f"{who} failed:", file=sys.stderr)
    traceback.print_exception(error)
    return 1


def require_one_process(program: str) -> None:
    """Raises a `UserError` where several processes were started for a program that is for one."""
    for name in _COUNTS:
        if _read_number(name) > 1:
            raise UserError(
                f"{program} runs in one process, on all devices that it sees, and {name}="
                f"{os.environ[name]} started several; start one (its batches are cut to the length"
                " of their texts, which each process would have to know of all others')"
            )


def environment_alone() -> dict[str, str]:
    """Returns the environment of a program that a process of several starts for itself."""
    return {name: value for name, value in os.environ.items() if name not in _COUNTS}


def _read_number(variable: str) -> int:
    """Returns the number in a variable of the environment; 1 where it is not set."""
    text = os.environ.get(variable) or "1"
    if not text.isdecimal():
        raise UserError(f"{variable}={text} must be a whole number")
    return int(text)


def is_first() -> bool:
    """Returns whether this process is the one that writes and reports."""
    return jax.process_index() == 0


def on_first(act: Callable[[], None]) -> None:
    """Acts in the first process, and all others wait; raises in all what it finds wrong."""
    if jax.process_count() == 1:
        act()
        return
    message = ""
    if is_first():
        try:
            act()
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = describe_os_error(error)
    words = np.zeros(_MOST_SENT, np.uint8)
    sent = np.frombuffer(message.encode()[:_MOST_SENT], np.uint8)
    words[: len(sent)] = sent
    mistake = bytes(multihost_utils.broadcast_one_to_all(words)).rstrip(b"\0")
    if mistake:
        raise UserError(mistake.decode(errors="replace"))


def wait_for_all(reason: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(reason)


def anywhere(here: bool) -> bool:
    """Returns whether it is so in any process."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).any())


def gather(tree: Any) -> Any:
    """Makes the arrays readable whole in this process; unchanged where it is alone."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


class Agreement:
    """What must be the same in all processes at the same step: the time, and whether to stop.

    Each call contributes this process's clock and the signal it received, and gives clock and stop
    request what came of an earlier call: the time of the process that has the mesh's first device,
    and a signal that any process received. The answers are those of `LAG` calls ago, for which no
    device has to be waited for. Of one process nothing is asked.

    Args:
        mesh: the devices of all processes.
        clock: of the run.
        stop: request of this process.
    """

    def __init__(self, mesh: Mesh, clock: Clock, stop: StopRequest) -> None:
        self._clock, self._stop = clock, stop
        self._alone = jax.process_count() == 1
        clock.shared = stop.shared = not self._alone
        self._pending: collections.deque[jax.Array] = collections.deque()
        self._asked = False
        self._each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._combine = jax.jit(
            lambda sent: jnp.stack([sent[0, 0], sent[:, 1].max()]),
            out_shardings=NamedSharding(mesh, PartitionSpec()),
        )

    def __call__(self) -> None:
        if self._alone:
            return
        number = signal.Signals[self._stop.received].value if self._stop.received else 0
        sent = np.array([[self._clock.measured, number]], np.float32)
        sent = sent.repeat(jax.local_device_count(), 0)
        self._pending.append(
            self._combine(jax.make_array_from_process_local_data(self._each, sent))
        )
        if self._asked and len(self._pending) <= LAG:
            return
        self._asked = True
        seconds, number = np.asarray(self._pending.popleft())
        self._clock.agree(float(seconds))
        if number:
            self._stop.agree(signal.Signals(int(number)).name)
