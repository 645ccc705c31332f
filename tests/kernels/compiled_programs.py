"""What a compiled program holds at once, read off its text."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np


def largest_buffer(compiled):
    """Elements of the largest array that a compiled program names, inputs and outputs too."""
    shapes = re.findall(r"\b(?:f|bf|s|u|pred)\d*\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


def operands_of_products(function, *arguments):
    """The dtype of the first operand of every product of the compiled function."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    types = dict(re.findall(r"%([\w.-]+) = (\w+)\[", text))
    products = re.findall(r" dot\((?:\w+\[.*?\]\S* )?%([\w.-]+), ", text)
    return [types[name] for name in products]


def narrowed(values):
    """Rounded to bfloat16, in float64."""
    return np.asarray(jnp.asarray(values, jnp.bfloat16), np.float64)
