"""The worklist page: what a reader sees of the device, live and without another origin."""
