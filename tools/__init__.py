"""The edge-triage command: one module per subcommand, and the scripts behind the shipped models."""
