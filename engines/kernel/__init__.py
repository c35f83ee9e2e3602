"""Stored pixels to the model's input in one kernel, on a device or on the host."""
