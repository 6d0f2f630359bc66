"""Answers of the dense model to many prompts: durable, resumable, by one of several engines."""

from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.transformers_engine import generate_batch


__all__ = ["Sampling", "generate_batch", "prompt_ids"]
