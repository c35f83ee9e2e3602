"""The arithmetic of the preprocessing steps: pure functions on arrays, NumPy only, one thread."""
