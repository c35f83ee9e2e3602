"""Who may do what with models, and the chain of entries that says who did."""
