"""Pure tensor functions: divergences, the head that computes them, and distances between hidden states."""
