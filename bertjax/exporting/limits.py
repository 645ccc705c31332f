"""The forms of an export, and how far its answers may be from the model's. Imports nothing."""

from typing import Literal

Format = Literal["onnx", "stablehlo"]
FORMATS: tuple[Format, ...] = ("onnx", "stablehlo")

# The largest difference of a float32 export, as a share of the largest answer where that is above
# 1. Rounding alone gives a few millionths.
TOLERANCE = 1e-4
# What an int8 export may move: the share of answers that are others, the cosine of a text's vector
# to the model's, and the main score of a task (as a share of its best value).
MOST_CHANGED, LEAST_COSINE, MOST_LOST = 0.05, 0.97, 0.01
