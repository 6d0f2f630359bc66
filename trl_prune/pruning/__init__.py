"""Pruning: model families, importance scores, target sizes, choice of units, surgery and repairs."""
