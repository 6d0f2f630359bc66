"""Every private name of TRL that we use. When TRL moves one, this file changes and no other."""

from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import FusedCausalLMOutput
from trl.trainer.utils import get_config_model_id as config_model_id
from trl.trainer.utils import maybe_gather_lm_head_ctx as gathered_head


__all__ = ["FusedCausalLMOutput", "config_model_id", "gathered_head", "prepare_deepspeed", "prepare_fsdp"]
