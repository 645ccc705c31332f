"""The ladder against torch itself, over configurations that hypothesis draws.

    .venv-parity/bin/python -m pytest tests/parity
    PARITY_EXAMPLES=50 .venv-parity/bin/python -m pytest tests/parity/test_ladder.py

Skipped where torch is not installed. `PARITY_EXAMPLES` is the number of configurations a
family.
"""

import functools
import os

import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.architectures import ARCHITECTURES
from tests.parity.cases import CLASSES_OF, draw_cases
from tests.parity.ladder import (
    TOLERANCES,
    compute_family,
    compute_ours,
    compute_theirs,
    differences,
)
from tests.parity.random_models import draw_parameters

# Tracing and compiling takes seconds for each of the two widths.
EXAMPLES = int(os.environ.get("PARITY_EXAMPLES", "4"))
CLASSES = [name for classes in CLASSES_OF.values() for name in classes]


def assert_equal(case, name, actual, expected, dtype):
    found = differences(case, actual, expected)
    over = {part: value for part, value in found.items() if value > TOLERANCES[dtype]}
    assert over == {}, f"{name}, {dtype}, {case.config}"


@pytest.mark.parametrize("number", range(EXAMPLES))
@pytest.mark.parametrize("family", CLASSES_OF)
def test_classes_of_a_family_equal_torch(family, number):
    case = cases_of(family)[number]
    params = {name: draw_parameters(case.config, name) for name in CLASSES_OF[family]}
    expected = {name: compute_theirs(case, name, own) for name, own in params.items()}
    for dtype in TOLERANCES:
        for name, actual in compute_family(case, params, dtype).items():
            assert_equal(case, name, actual, expected[name], dtype)


@pytest.mark.parametrize("architecture", CLASSES)
def test_class_by_itself_equals_torch(architecture):
    """What a program of all classes has not: the class's own call of the body."""
    case = cases_of(ARCHITECTURES[architecture].family)[-1]
    params = draw_parameters(case.config, architecture)
    expected = compute_theirs(case, architecture, params)
    actual = compute_ours(case, architecture, params, "float64")
    assert_equal(case, architecture, actual, expected, "float64")


@functools.cache
def cases_of(family):
    cases = draw_cases(family, EXAMPLES)
    assert len(cases) == EXAMPLES
    return cases
