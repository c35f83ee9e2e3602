"""How fast engines run a package's model on this machine, beside the peers that are installed."""
