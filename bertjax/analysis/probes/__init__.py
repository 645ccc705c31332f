"""What hidden states and heads know of a treebank."""
