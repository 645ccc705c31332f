"""Raw text to rows: read, clean, remove duplicates, split into sentences, tokenize, pair, pack. It
never imports jax.
"""
