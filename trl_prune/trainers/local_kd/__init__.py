"""Local distillation: the blocks next to a cut learn the dense model's states, and nothing else runs."""
