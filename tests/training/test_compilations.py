"""Compilations are counted where they happen, and nowhere else."""

import jax
import jax.numpy as jnp

from bertjax.training.compilations import count_compilations


def test_compilations_between_marks_are_counted():
    double = jax.jit(lambda x: 2 * x)
    inputs = [jnp.ones(size) for size in (2, 3, 5)]
    with count_compilations() as counted:
        double(inputs[0])
        assert counted.total == 1
        assert counted.between_marks() is None
        counted.mark()
        assert counted.between_marks() is None  # one mark measures nothing
        double(inputs[0])
        counted.mark()
        assert counted.between_marks() == 0
        double(inputs[1])
        counted.mark()
        assert counted.between_marks() == 1
    double(inputs[2])
    assert counted.total == 2
