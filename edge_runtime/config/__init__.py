"""The closed settings schema and how a file becomes settings."""
