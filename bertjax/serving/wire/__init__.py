"""The routes, one file for the clients of each kind."""
