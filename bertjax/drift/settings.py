"""What a comparison takes where nothing else is asked for; without jax, for the command."""

# The probability, at most, that anything is said to have moved where nothing has.
LEVEL = 0.05
PERMUTATIONS = 1999
# Requests of a sample that are compared: more are drawn from.
MOST_REQUESTS = 2000
