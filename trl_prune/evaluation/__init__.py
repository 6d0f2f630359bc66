"""A model becomes numbers: lm-eval, recovery, size and speed."""
