"""Evaluation of models: lm-eval scores, recovery, size and speed."""
