"""What changes from layer to layer: similarity, the lens, contexts."""
