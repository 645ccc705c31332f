"""Raw text to rows: numpy and Arrow, never jax."""
