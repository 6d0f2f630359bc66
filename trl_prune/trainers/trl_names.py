"""All private names of TRL that the package uses: when TRL moves one, only this file changes."""

from trl.models.utils import prepare_deepspeed, prepare_fsdp, unwrap_model_for_generation
from trl.trainer.utils import FusedCausalLMOutput
from trl.trainer.utils import get_config_model_id as config_model_id
from trl.trainer.utils import maybe_gather_lm_head_ctx as gathered_parameters


__all__ = [
    "FusedCausalLMOutput",
    "config_model_id",
    "gathered_parameters",
    "prepare_deepspeed",
    "prepare_fsdp",
    "unwrap_model_for_generation",
]
