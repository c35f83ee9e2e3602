"""Pure values and transition tables: no clock, file, socket or database."""
