"""The ladder against torch itself, over configurations that hypothesis draws.

    .venv-parity/bin/python -m pytest tests/parity
    PARITY_EXAMPLES=50 .venv-parity/bin/python -m pytest tests/parity/test_ladder.py

Skipped where torch is not installed. `PARITY_EXAMPLES` is the number of configurations a class.
"""

import os

import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
pytest.importorskip("transformers", reason="transformers is not installed")

from tests.parity.cases import CLASSES, for_random_cases
from tests.parity.ladder import TOLERANCES, compute_ours, compute_theirs, differences
from tests.parity.random_models import draw_parameters

# Compiling takes two seconds for each of the two widths.
EXAMPLES = int(os.environ.get("PARITY_EXAMPLES", "4"))


@pytest.mark.parametrize("architecture", CLASSES)
def test_class_equals_torch(architecture):
    compared = []

    def compare(case):
        params = draw_parameters(case.config, architecture)
        expected = compute_theirs(case, architecture, params)
        for dtype, tolerance in TOLERANCES.items():
            actual = compute_ours(case, architecture, params, dtype)
            found = differences(case, actual, expected)
            over = {name: value for name, value in found.items() if value > tolerance}
            assert over == {}, f"{dtype}, {case.config}"
            compared.append(case.config)

    for_random_cases(compare, architecture, EXAMPLES)
    assert len(compared) == EXAMPLES * len(TOLERANCES)
