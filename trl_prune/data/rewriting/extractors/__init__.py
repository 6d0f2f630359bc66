"""Extractors: how the final answer of a text is found and compared, one module for each kind."""
