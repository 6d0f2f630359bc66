"""Answers of the dense model to many prompts: durable, resumable, by one of several engines."""
