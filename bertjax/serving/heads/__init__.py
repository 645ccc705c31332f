"""What each head of a model answers, as Python values, whatever the wire format of the call."""
