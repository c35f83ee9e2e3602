"""Engines that this device built: what they are of, that they are its own, and that they are right.

A plan is machine code that a library loads into this process without looking. So none is read that
this device did not build and seal itself, for exactly the model, library, GPU and settings at hand,
and none is used before it was compared with the reference.
"""
