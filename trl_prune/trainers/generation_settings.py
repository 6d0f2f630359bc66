"""Generation configs that transformers loads with a warning and refuses to save once they were changed."""

import logging

from transformers import GenerationConfig, PreTrainedModel


# Settings without effect, and refused, while sampling or beam search is off.
OF_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip
OF_BEAMS = ("early_stopping", "length_penalty")
OF_CACHE = ("cache_implementation", "cache_config")
OF_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
logger = logging.getLogger(__name__)


def mend_generation_config(model: PreTrainedModel) -> None:
    """Leave out of a model's generation config what has no effect in it, if transformers would refuse to save it.

    A trainer changes the config (its padding token), after which transformers saves it only without contradictions.
    Published checkpoints often hold a temperature without `do_sample`, which generation ignores.
    """
    config = getattr(model, "generation_config", None)
    if config is None or _is_saveable(config):
        return
    default = GenerationConfig()
    idle = [name for name in _idle(config) if getattr(config, name, None) != getattr(default, name, None)]
    for name in idle:
        setattr(config, name, getattr(default, name, None))
    if idle:
        logger.warning(
            "the generation config of %s sets %s, which has no effect without its mode and which transformers refuses "
            "to save: left out of the trained model",
            model.config.name_or_path,
            ", ".join(idle),
        )


def _is_saveable(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def _idle(config: GenerationConfig) -> list[str]:
    """Return the settings that need a mode which is off."""
    names = [] if config.do_sample is True else [*OF_SAMPLING]
    names += [] if (config.num_beams or 1) > 1 else OF_BEAMS
    names += OF_CACHE if config.use_cache is False else []
    names += [] if config.return_dict_in_generate is True else OF_OUTPUTS
    return names + (["pad_token_id"] if (config.pad_token_id or 0) < 0 else [])
