"""A dataset becomes better: formatting, rewriting, generation, starter data."""
