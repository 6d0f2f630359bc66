"""Every private name of TRL that we use. When TRL moves one, this file changes and no other."""

from trl.trainer.utils import get_config_model_id as config_model_id


__all__ = ["config_model_id"]
