"""Answers of the dense model to many prompts: durable, resumable, by one of several engines."""

from trl_prune.data.generation.batch_files import (
    Answer,
    Sampling,
    generate_batch,
    generate_missing_batches,
    generation_key,
    plan_batches,
    prompt_ids,
    read_answers,
)


__all__ = [
    "Answer",
    "Sampling",
    "generate_batch",
    "generate_missing_batches",
    "generation_key",
    "plan_batches",
    "prompt_ids",
    "read_answers",
]
