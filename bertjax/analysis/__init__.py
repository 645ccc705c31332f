"""BERTology: what a BERT computes inside, what its heads attend to, why it answers as it does."""
