"""A model for other programs: exported, compared with what it was made of, written whole."""
