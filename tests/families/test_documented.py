"""The page about families names every one of them."""

from pathlib import Path

import pytest

from bertjax.families.registry import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_its_line_in_the_table(family):
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"| `{family}` |") for line in lines)
