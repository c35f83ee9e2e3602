"""Series → volume and folder → report: ours beside peers, each in a warm process of its own."""
