"""The programs that make models, each one readable `main(config)`: `python -m train.NAME`."""
