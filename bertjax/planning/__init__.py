"""What a training run needs of devices that need not be there: memory, communication, time."""

# Of a prepared directory that is not there: tokens a row, and of the tokenizer.
DEFAULT_LENGTH, DEFAULT_VOCABULARY = 512, 30_000
# Tokens that a device may have of a batch while the largest is searched: nobody trains with more.
MOST_TOKENS = 1 << 20
