"""Peers and clocks that the tests drive; each implements the production protocol."""
