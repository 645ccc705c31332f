"""What a compiled program holds at once, read off its text."""

import math
import re


def largest_buffer(compiled):
    """Elements of the largest array that a compiled program names, inputs and outputs too."""
    shapes = re.findall(r"\b(?:f|bf|s|u|pred)\d*\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)
