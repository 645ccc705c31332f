"""The programs that make models. Each is one readable `main(config)`; run them as `python -m train.NAME`."""
