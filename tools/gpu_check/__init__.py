"""Checks and times everything that needs a GPU, on a machine that has one and no network.

``python -m tools.gpu_check.prepare`` gathers what such a machine lacks into parts that can be
carried, ``receive.py`` puts them together there, and ``python -m tools.gpu_check`` runs the steps
and prints a short table last. See docs/gpu-check.md.
"""
