"""What a gate speaks of: kinds of change to texts, quantities with units, defaults. No jax."""

# Kinds of change to texts (`robustness`), in the order in which they are shown.
KINDS = ("typos", "case", "punctuation", "spacing")
# Every quantity beside the scores of the task: its unit, and what it is.
UNITS = {
    "calibration_error": ("0 to 1", "how far confidence is from the share of right answers"),
    "brier": ("0 to 2", "mean squared distance of the probabilities from what is right"),
    "worst_slice": ("as outcomes", "the mean outcome of the slice where it is least"),
    "flips": ("0 to 1", "share of answers that change when texts do, mean over the kinds"),
    **{f"flips_{kind}": ("0 to 1", f"the same of {kind} alone") for kind in KINDS},
    "parameters": ("numbers", "how many are learned"),
    "bytes": ("bytes", "of the files of the weights on the disk"),
    "median_ms": ("milliseconds", "the median text, answered alone, tokenization included"),
    "p95_ms": ("milliseconds", "the same of the text that 95 % do not exceed"),
}
# What is known exactly; everything else is of a sample of examples or texts.
EXACT = ("parameters", "bytes")
SPEED = ("median_ms", "p95_ms")
# Of the bootstrap: the end of a one-sided interval is the place of the 100th of them.
RESAMPLES, LEAST_RESAMPLES = 2000, 100
# Of how many texts the times are measured.
SPEED_TEXTS = 100
