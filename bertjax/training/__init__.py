"""The engine of training: optimizer, steps, sharding, batches, checkpoints, metrics.

The loops live in `train/`.
"""
