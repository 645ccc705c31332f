"""The engine of training: optimizer, steps, sharding, batches, checkpoints, metrics. Loops live in `train/`."""
