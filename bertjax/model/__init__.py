"""The model, top to bottom the figure in the paper: embeddings, attention, encoder, heads, bert."""
