"""Task groups for lm-eval that measure what pruning costs and recovery brings back."""
