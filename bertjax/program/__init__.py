"""What makes a program behave: what it writes is whole or absent."""
