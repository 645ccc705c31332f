"""How a process finds the others, and what it says where it cannot. (Several: tests/train.)"""

import os

import jax
import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.training import processes
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.processes import Agreement, joined, on_first, require_one_process
from bertjax.training.signals import StopRequest


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", *processes._COUNTS):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_joined_unless_asked(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    with joined(False):
        pass


def test_no_other_process_to_be_found_says_how_to_start_them(monkeypatch):
    def fail(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with (
        pytest.raises(UserError, match=r"cannot find the other .*local.sh.*JAX_PROCESS_ID"),
        joined(True),
    ):
        pass


def test_variables_name_the_processes(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: given.update(options))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    with (
        pytest.raises(UserError, match=r"ADDRESS and JAX_PROCESS_ID must be set, too"),
        joined(True),
    ):
        pass
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    with joined(True):
        pass
    assert (given["num_processes"], given["process_id"]) == (3, 2)
    assert given["heartbeat_timeout_seconds"] < 120


def test_standard_output_is_for_python_alone(capfd, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: None)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    with joined(True):
        os.write(1, b"a greeting\n")
        print("told")
    print("told afterwards")
    assert capfd.readouterr() == ("told\ntold afterwards\n", "a greeting\n")


def test_standard_output_without_room_is_an_error_of_the_program(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: None)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    whole = os.dup(1)
    with open("/dev/full", "w") as full:
        os.dup2(full.fileno(), 1)
    try:
        with pytest.raises(OSError, match="No space left"), joined(True):
            print("told")
        assert os.stat(1).st_rdev == os.stat("/dev/full").st_rdev
    finally:
        os.dup2(whole, 1)
        os.close(whole)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAX_NUM_PROCESSES", "two"),
        ("JAX_PROCESS_ID", "-1"),
        ("JAX_PROCESS_ID", ""),
        ("JAX_COORDINATOR_ADDRESS", "localhost"),
        ("JAX_COORDINATOR_ADDRESS", "localhost:http"),
    ],
)
def test_variable_of_no_use_is_told(monkeypatch, variable, value):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    given = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "JAX_COORDINATOR_ADDRESS": "host:1"}
    for name, text in (given | {variable: value}).items():
        monkeypatch.setenv(name, text)
    with (
        pytest.raises(UserError, match=rf"{variable}={value} must be|{variable} must be set"),
        joined(True),
    ):
        pass


@pytest.mark.parametrize(
    "name", ["JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"]
)
def test_program_for_one_process_refuses_several(monkeypatch, name):
    require_one_process("it")
    monkeypatch.setenv(name, "1")
    require_one_process("it")
    monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match=rf"it runs in one process.* {name}=2 started several"):
        require_one_process("it")


def test_one_process_of_a_job_for_several_is_let_be(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of the job; without srun there is one process
    require_one_process("it")


def test_lost_process_is_told_apart_from_other_failures(capsys):
    lost = jax.errors.JaxRuntimeError("INTERNAL: Gloo AllReduce failed: Connection closed by peer")
    assert processes._tell(lost) == processes.LOST_EXIT_CODE
    assert "process 0 of 1: another process went" in capsys.readouterr().err
    assert processes._tell(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")) == 1
    assert "Out of memory" in capsys.readouterr().err
    assert processes._tell(UserError("a mistake")) == 2


def test_one_process_asks_nobody(one_device):
    clock, stop = Clock(BudgetConfig(steps=3), 1, 1), StopRequest()
    Agreement(one_device, clock, stop)()
    assert not clock.shared
    assert not stop.shared
    acted = []
    on_first(lambda: acted.append(1))
    assert acted == [1]


def test_agreement_is_on_the_first_clock_and_any_signal(eight_devices):
    """The reduction itself, over eight devices as if each were a process."""
    agree = Agreement(eight_devices, Clock(BudgetConfig(steps=3), 1, 1), StopRequest())
    said = np.zeros((8, 2), np.float32)
    said[:, 0] = np.arange(8) + 5
    said[3, 1] = 15
    np.testing.assert_array_equal(agree._combine(said), [5, 15])
