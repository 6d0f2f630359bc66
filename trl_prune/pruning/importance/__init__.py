"""Importance of decoder blocks, heads, neurons, hidden channels and experts, scored in one forward-only pass."""
