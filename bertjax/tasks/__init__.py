"""The tasks that a BERT is fine-tuned for, one file each."""
