"""What is done with a `Model`: its methods, a file for each purpose; the work is in other parts."""
