"""What can be read from hidden states and heads with a treebank."""
