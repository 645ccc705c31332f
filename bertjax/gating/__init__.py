"""Whether a new model may take an old one's place: measured beside it, judged by requirements."""
