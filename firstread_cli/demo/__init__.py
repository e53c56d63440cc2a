"""``firstread demo``: real pictures, and a drawn one, on the whole way from image to row."""
