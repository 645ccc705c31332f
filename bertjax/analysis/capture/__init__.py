"""What goes in and what is taken out: texts as ids, attention maps and hidden states."""
