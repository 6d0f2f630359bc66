"""Sizes of pruned models: what they cost, which fit a budget, and which the model format can express."""
