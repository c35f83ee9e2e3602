"""How the shipped models are trained: one small network, one loop, one export."""
