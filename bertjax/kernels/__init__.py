"""Attention backends: one function each, one signature."""
