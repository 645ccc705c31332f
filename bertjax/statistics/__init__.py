"""How sure a figure is: intervals, drawn units."""
