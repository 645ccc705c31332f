"""What all parts compute with: matrix products in a narrow dtype, placement on a mesh."""
