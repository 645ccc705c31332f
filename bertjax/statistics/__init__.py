"""How certain a figure is: intervals, and the units they are drawn from."""
