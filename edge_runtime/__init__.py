"""The device: wiring, state, pipeline, outputs, worklist page and supervision."""
