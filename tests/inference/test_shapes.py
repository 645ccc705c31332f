"""The closed set of shapes: known beforehand, small, and enough for everything."""

import jax
import pytest

from bertjax.inference import shapes as shapes_module
from bertjax.inference.shapes import Shape, Shapes
from bertjax.training.sharding import MeshConfig, make_mesh


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(shapes_module, "count_cores", lambda: 2)


def test_lengths_are_powers_of_two_and_between_up_to_the_longest():
    wide = Shapes(100, lambda length: 1)
    assert [shape.length for shape in wide] == [16, 24, 32, 48, 64, 96, 100]
    assert [shape.length for shape in Shapes(100, lambda length: 1, between=False)] == [
        16, 32, 64, 100,
    ]  # fmt: skip
    assert [shape.length for shape in Shapes(11, lambda length: 1)] == [11]
    assert [shape.length for shape in Shapes(16, lambda length: 1)] == [16]
    assert [wide.length_for(tokens) for tokens in (1, 16, 17, 25, 99, 100)] == [
        16, 16, 24, 32, 100, 100,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="101 tokens do not fit rows of 100"):
        wide.length_for(101)


def test_rows_are_as_many_as_fit_and_a_quarter_of_that():
    found = Shapes(
        32, lambda length: 700 // length, between=False, slots=lambda length: (2, length)
    )
    assert list(found) == [
        *(Shape(rows, 16, slots) for slots in (2, 16) for rows in (42, 10, 2, 1)),
        *(Shape(rows, 32, slots) for slots in (2, 32) for rows in (20, 4, 1)),
    ]
    assert len(found) == 14
    assert found.slots_for(32, 2) == 2
    assert found.slots_for(32, 3) == 32


def test_a_text_too_long_for_the_budget_is_alone():
    assert list(Shapes(16, lambda length: 0)) == [Shape(1, 16, 1)]


def test_devices_of_a_mesh_get_as_many_rows():
    mesh = make_mesh(MeshConfig(), jax.devices()[:8])
    for shape in Shapes(512, lambda length: 5000 // length, mesh=mesh):
        assert shape.rows % 8 == 0


def test_the_last_rows_go_into_a_batch_that_they_nearly_fill_or_into_smaller_ones():
    found = Shapes(64, lambda length: 20)
    assert found.divide(16, 64) == [20]
    assert found.divide(33, 64) == [20, 4, 4, 4, 1]
    assert found.divide(3, 64) == [1, 1, 1]


@pytest.mark.parametrize("rows", [*range(1, 50), 1000])
def test_rows_are_divided_with_little_to_spare(rows):
    found = Shapes(64, lambda length: 20)
    parts = found.divide(rows, 64)
    assert {*parts} <= {shape.rows for shape in found if shape.length == 64}
    assert sorted(parts, reverse=True) == parts
    assert rows <= sum(parts) < max(rows + 1, 4 / 3 * rows)
