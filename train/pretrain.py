"""`bertjax pretrain` as a script for job files: `python -m train.pretrain OPTIONS`."""

from bertjax.__main__ import main

if __name__ == "__main__":
    main("pretrain")
