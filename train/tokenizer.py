"""`bertjax tokenizer` as a script for job files: `python -m train.tokenizer OPTIONS`."""

from bertjax.__main__ import main

if __name__ == "__main__":
    main("tokenizer")
