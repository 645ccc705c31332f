"""What a BERT is put to work at: one file a task."""
