"""Whether a checkpoint is a language model that is read from left to right, by its config alone."""

from typing import TYPE_CHECKING

from trl_prune.errors import InputError


if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Ends of the names of classes with other heads on a decoder, such as reward models.
OTHER_HEADS = ("Classification", "QuestionAnswering", "RewardModel", "ForMaskedLM", "ForMultipleChoice")


def check_causal_lm(config: "PreTrainedConfig") -> None:
    """Check that a checkpoint is a decoder with a language-model head, alone or with other towers.

    Raises:
        InputError: it is a classifier, a reward model, an encoder or an encoder-decoder.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    others = [name for name in config.architectures or [] if name.endswith(OTHER_HEADS)]
    if others:
        raise InputError(f"the checkpoint is a {others[0]}, which has no language-model head; wanted: a causal LM")
    name = config.model_type
    if config.is_encoder_decoder:
        raise InputError(f"the checkpoint is an encoder-decoder ({name}); wanted: a decoder-only causal LM")
    is_generative = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    is_encoder = name in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if is_encoder or not is_generative:
        kind = (
            f"an encoder ({name})"
            if name in MODEL_FOR_MASKED_LM_MAPPING_NAMES
            else f"no causal LM of transformers ({name})"
        )
        raise InputError(f"the checkpoint is {kind}; wanted: a decoder-only causal LM")
