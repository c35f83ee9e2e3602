"""The way of a study through the worker: flow.py has the order."""
