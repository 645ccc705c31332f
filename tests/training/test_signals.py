"""SIGTERM and SIGINT as a request to stop."""

import os
import signal
import subprocess
import sys

import pytest

from bertjax.program.ending import STOPPED_EXIT_CODE, ending_at_once
from bertjax.training.signals import StopRequest


def test_exit_code_is_that_of_try_again():
    assert os.EX_TEMPFAIL == STOPPED_EXIT_CODE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noted_and_interrupts_nothing(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.name is None
        os.kill(os.getpid(), number)
        assert stop.name == number.name
    assert signal.getsignal(number) is before


def test_second_interrupt_interrupts_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.name == "SIGINT"


def test_second_sigterm_does_not_hurry():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.name == "SIGTERM"


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


# Like XLA's compiler: minutes in C, in which Python runs no handler.
# A shell that starts the suite in the background has it ignore SIGINT.
BUSY = """
import hashlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bertjax.program.ending import ending_at_once

@ending_at_once(resumes=True)
def main():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_at_once_what_has_nothing_to_save(number):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == STOPPED_EXIT_CODE
    assert errors == (
        f"{number.name}: stopped; nothing is lost, the same command continues from what is saved\n"
    )


def test_request_to_stop_goes_before_the_end_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with ending_at_once(resumes=True):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_shared_request_stops_for_what_it_is_told():
    with StopRequest() as stop:
        stop.shared = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.received, stop.name) == ("SIGTERM", None)
        stop.agree("SIGINT")
        assert stop.name == "SIGINT"
