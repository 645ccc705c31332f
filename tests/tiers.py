"""Which of a test's parameters `make test` leaves to `make test-whole`."""

import pytest


def leave_whole(parameters, whole):
    """The parameters, with those that `whole` contains marked so."""
    return [pytest.param(one, marks=[pytest.mark.whole] * (one in whole)) for one in parameters]
