"""Self-data distillation: an SFTTrainer whose training answers the dense model writes (arXiv 2410.09982)."""
