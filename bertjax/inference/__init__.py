"""The batcher: any texts -> rows of a closed set of shapes -> outputs in order."""
