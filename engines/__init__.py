"""Inference engines and the model package format."""
