"""How fast it is: attention backends on this machine."""
