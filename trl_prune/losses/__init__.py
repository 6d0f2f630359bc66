"""Pure tensor functions: divergences, the LM head of a distilled student, and distances between hidden states."""
