"""lm-eval task groups that measure a pruned model's losses and its recovery."""
