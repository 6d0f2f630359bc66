"""The generation settings of a checkpoint, which are kept out of what is measured of its model."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel


# What a checkpoint's settings say about tokens, and not about how they are chosen.
TOKENS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")


@contextmanager
def settings_of(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Give a model a generation config of its own for a while: `generate` adds what the model's has to any other."""
    original = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = original


@contextmanager
def plain_settings(model: PreTrainedModel) -> Iterator[None]:
    """Leave of a model's generation settings its special tokens only: no beams, penalties or sampling of its own."""
    tokens = {name: getattr(model.generation_config, name, None) for name in TOKENS}
    with settings_of(model, GenerationConfig(**tokens)):
        yield
