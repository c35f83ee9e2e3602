"""Hardware profiles, site examples and unit files: data only, no code."""
