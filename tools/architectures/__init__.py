"""Writes well-known network architectures as ONNX files with random weights.

``python -m tools.architectures densenet121 --out model.onnx``: for the tutorial, for tests and for
load measurements. The graphs are those of the papers, so that speed and memory are those of a real
model; the weights are drawn from a seed, so that the answers mean nothing.
"""
