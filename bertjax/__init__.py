"""bertjax: BERT in JAX.

Make one with `train/`, use and study it with the `bertjax` command, read it in `bertjax/model/`.
"""

__version__ = "0.2.0"
