"""Does a checkpoint compute the same however its examples are put to the model? Proofs by example.

`examples.py` arranges the same examples in several ways, `outputs.py` reads what the model made of
each, `reference.py` asks another program, `checks.py` compares.
"""
