"""Recipes of pretraining that get the same minutes: ours, and torch's with transformers."""
