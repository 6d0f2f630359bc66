"""Arguments of the self-data distillation trainer."""

from dataclasses import dataclass, field

from trl import SFTConfig


@dataclass
class SelfDistillSFTConfig(SFTConfig):
    """Configuration class for the [`SelfDistillSFTTrainer`].

    All arguments of [`~trl.SFTConfig`] keep their meaning; those below configure how the dense model rewrites the
    answers.
    """

    _VALID_DICT_FIELDS = [*SFTConfig._VALID_DICT_FIELDS, "teacher_model_init_kwargs"]

    rewrite: bool | str = field(
        default=True,
        metadata={
            "help": "Whether the dense model rewrites the answers before training. `True` rewrites datasets that have "
            "answers (prompt-completion, messages) and trains on others as they are, with a warning; `'require'` "
            "refuses others; `False` is plain SFT."
        },
    )
    teacher_model_init_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Keyword arguments for `from_pretrained` of a teacher given by name (dtype, device_map, ...)."
        },
    )
    rewrite_max_new_tokens: int = field(
        default=256,
        metadata={
            "help": "Maximum length of a rewritten answer in tokens; a longer one is truncated, and its row keeps the "
            "reference."
        },
    )
    rewrite_batch_size: int = field(default=32, metadata={"help": "Prompts per generation batch on each process."})
    rewrite_temperature: float = field(default=0.0, metadata={"help": "Sampling temperature; 0 is greedy decoding."})
    rewrite_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the generated answers, saved batch by batch, so that an interrupted run resumes from "
            "the last saved batch; the same for all processes. Defaults to `rewrites` inside `output_dir`."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.rewrite not in (True, False, "require"):
            raise ValueError(f"`rewrite` is {self.rewrite!r}; allowed: True, False, 'require'")
