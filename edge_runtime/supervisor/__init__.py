"""The table of processes and what keeps it true."""
