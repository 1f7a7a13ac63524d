"""The textbook algorithms in plain NumPy, to be read."""
