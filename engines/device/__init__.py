"""What computes, behind one contract: an NVIDIA GPU by one of two libraries, or the host."""
