"""What a training run needs of devices that may be absent: memory, communication, time."""

# For a prepared directory that does not exist: tokens per row, and tokens of the tokenizer.
DEFAULT_LENGTH, DEFAULT_VOCABULARY = 512, 30_000
# The most tokens of a batch per device in the search for the largest: nobody trains with more.
MOST_TOKENS = 1 << 20
