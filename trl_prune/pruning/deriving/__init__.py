"""Rows for model types outside the table: derived from tiny models, and proven by running them."""
