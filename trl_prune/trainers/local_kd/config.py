"""Arguments of the local distillation trainer."""

from dataclasses import dataclass, field

from trl import SFTConfig

from trl_prune.losses.hidden_states import HIDDEN_LOSSES


@dataclass
class LocalKDConfig(SFTConfig):
    """Configuration class for the [`LocalKDTrainer`].

    All arguments of [`~trl.SFTConfig`] keep their meaning, but those of its cross-entropy, which is not computed.
    """

    _VALID_DICT_FIELDS = [*SFTConfig._VALID_DICT_FIELDS, "teacher_model_init_kwargs"]

    teacher_model_init_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Keyword arguments for `from_pretrained` of a teacher given by folder or hub id; dtype and "
            "attention default to the student's."
        },
    )
    blocks_after_cut: int = field(
        default=2,
        metadata={"help": "How many blocks behind each cut are trained; the block before it is trained as well."},
    )
    hidden_distance: str = field(
        default="relative_mse",
        metadata={"help": "Distance of the states: `relative_mse`, `mse` or `cosine`."},
    )

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.blocks_after_cut, int) or self.blocks_after_cut < 0:
            raise ValueError(f"`blocks_after_cut` is {self.blocks_after_cut!r}; wanted: a whole number from 0 on")
        if self.gradient_checkpointing and (self.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ValueError(
                "`gradient_checkpointing_kwargs` has `use_reentrant`, with which blocks whose input has no gradient "
                "cannot be trained; leave it out"
            )
        if self.hidden_distance not in HIDDEN_LOSSES:
            raise ValueError(f"`hidden_distance` is {self.hidden_distance!r}; allowed: {', '.join(HIDDEN_LOSSES)}")
