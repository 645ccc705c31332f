"""How a program behaves: its start and end, its config, and outputs that are whole or absent."""
