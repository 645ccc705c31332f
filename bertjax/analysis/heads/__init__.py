"""What attention heads do: patterns, classes, redundancy, importance, pruning."""
