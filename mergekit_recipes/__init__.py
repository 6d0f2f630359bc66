"""Merge recipes for mergekit, as plain YAML files."""
