"""`bertjax finetune` as a script for job files: `python -m train.finetune OPTIONS`."""

from bertjax.__main__ import main

if __name__ == "__main__":
    main("finetune")
