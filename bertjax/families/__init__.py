"""What differs from BERT, a file a family: its config.json, its classes, its names of tensors."""
