"""Arguments of the distillation trainer."""

from dataclasses import dataclass, field

from trl import SFTConfig

from trl_prune.losses.distill_head import check_target
from trl_prune.losses.head_block import Objective
from trl_prune.losses.hidden_states import HIDDEN_LOSSES, STATES


@dataclass
class KDConfig(SFTConfig):
    """Configuration class for the [`KDTrainer`].

    All arguments of [`~trl.SFTConfig`] apply unchanged; those below set what the student learns from the teacher. The
    defaults are the best ones of [2407.14679](https://huggingface.co/papers/2407.14679): the forward KL at
    temperature 1, without cross-entropy.
    """

    _VALID_DICT_FIELDS = [
        *SFTConfig._VALID_DICT_FIELDS,
        "teacher_model_init_kwargs",
        "teacher_correction_args",
        "layer_map",
    ]

    # Parameters that control the teacher
    teacher_model_init_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Keyword arguments for `from_pretrained` of a teacher given by folder or hub id (dtype, "
            "device_map, quantization_config, ...); `dtype` defaults to the checkpoint's, or to float32 on a CPU "
            "without bfloat16."
        },
    )
    teacher_cache: str | None = field(
        default=None,
        metadata={"help": "Folder written by `trl-prune cache-teacher`; the trainer then loads no teacher."},
    )
    teacher_correction: str | None = field(
        default=None,
        metadata={
            "help": "Fine-tune the teacher on the training data first "
            "([2408.11796](https://huggingface.co/papers/2408.11796)): `full`, `lora` or `norms`, by what is trained. "
            "The corrected teacher is kept in `output_dir`."
        },
    )
    teacher_correction_args: dict | str | None = field(
        default=None,
        metadata={
            "help": "SFTConfig arguments of the correction (max_steps, learning_rate, ...); the others are those of "
            "the distillation."
        },
    )

    # Parameters that control what is trained
    freeze_shared_blocks: bool = field(
        default=False,
        metadata={
            "help": "Whether blocks below the first cut, which are the teacher's own, and the embeddings stay frozen. "
            "Their states are then computed once for teacher and student, and no gradient passes them."
        },
    )

    # Parameters that control the student's own answers
    lmbda: float = field(
        default=0.0,
        metadata={
            "help": "Share of the batches whose answers the student writes itself, as in GKD "
            "([2306.13649](https://huggingface.co/papers/2306.13649)); the teacher corrects them token by token."
        },
    )
    max_completion_length: int | None = field(
        default=None, metadata={"help": "Greatest number of tokens of such an answer; needed with `lmbda`."}
    )
    min_completion_length: int | None = field(
        default=None,
        metadata={
            "help": "That number at the first step, from which it grows linearly to `max_completion_length` at the "
            "last; by default it is the same at every step."
        },
    )
    generation_temperature: float = field(
        default=1.0, metadata={"help": "Temperature at which the student writes; 0 is greedy decoding."}
    )

    # Parameters that control the loss
    divergence: str = field(
        default="forward_kl",
        metadata={"help": "The divergence: `forward_kl`, `reverse_kl`, `jsd`, `mse` (of logits) or `cosine`."},
    )
    jsd_beta: float = field(default=0.5, metadata={"help": "The teacher's weight in the mixture of `jsd`."})
    temperature: float = field(default=1.0, metadata={"help": "Divides both models' logits in the divergence."})
    temperature_squared: bool = field(
        default=True,
        metadata={"help": "Whether the divergence, and its gradient, is multiplied by the square of the temperature."},
    )
    top_k: int | None = field(
        default=None,
        metadata={
            "help": "Compare the teacher's k likeliest tokens and the total mass of all others; by default the full "
            "vocabulary."
        },
    )
    kd_weight: float = field(default=1.0, metadata={"help": "Weight of the divergence."})
    ce_weight: float = field(default=0.0, metadata={"help": "Weight of the cross-entropy with the data's tokens."})

    # Parameters that control intermediate states
    hidden_loss: list[str] | str = field(
        default="auto",
        metadata={
            "help": "Intermediate states to compare: any of `embedding`, `block`, `mlp`, `attention`; `none`; or "
            "`auto`: `embedding` and `block` where a quarter of the blocks or more are removed, else none."
        },
    )
    hidden_distance: str = field(
        default="cosine",
        metadata={"help": "Distance of embedding, block and MLP states: `cosine`, `mse` or `relative_mse`."},
    )
    hidden_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the loss between intermediate states. By default it is dynamic: the ratio of the "
            "divergence to that loss in the previous step, which makes both terms equally large."
        },
    )
    layer_map: dict | str | None = field(
        default="auto",
        metadata={
            "help": "The teacher's block that each of the student's is compared with, counted from 0. `auto`: the "
            "student's last but two with its original dense block; where that is unknown, or no earlier block was "
            "removed or changed, with the teacher's last but two. `origins`: every block with its original dense "
            "block."
        },
    )

    def __post_init__(self):
        if self.greater_is_better is None and (self.metric_for_best_model or "").split("_")[-1] == "kl":
            self.greater_is_better = False  # transformers sets this for names that end in `loss` only
        super().__post_init__()
        check_target(None, self.objective)
        _check_positive(temperature=self.temperature)
        _check_not_negative(kd_weight=self.kd_weight, ce_weight=self.ce_weight)
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k` is {self.top_k}; wanted: 1 or more, or None")
        if self.kd_weight == 0 and self.ce_weight == 0:
            raise ValueError("`kd_weight` and `ce_weight` are both 0: there is nothing to learn")
        if self.teacher_correction not in (None, "full", "lora", "norms"):
            raise ValueError(f"`teacher_correction` is {self.teacher_correction!r}; allowed: full, lora, norms")
        self._check_own_answers()
        self._check_hidden_loss()

    def _check_own_answers(self) -> None:
        if not 0 <= self.lmbda <= 1:
            raise ValueError(f"`lmbda` is {self.lmbda}; it must be between 0 and 1")
        if self.lmbda and not self.max_completion_length:
            raise ValueError(
                f"`lmbda` is {self.lmbda}, so `max_completion_length` is needed: the longest answer in tokens"
            )
        for name in ("max_completion_length", "min_completion_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1")
        _check_not_negative(generation_temperature=self.generation_temperature)

    def _check_hidden_loss(self) -> None:
        if isinstance(self.hidden_loss, list) and len(self.hidden_loss) == 1:
            self.hidden_loss = self.hidden_loss[0]  # a command line's parser makes a list of `--hidden_loss none`
        if self.hidden_loss not in ("auto", "none"):
            states = [self.hidden_loss] if isinstance(self.hidden_loss, str) else self.hidden_loss
            if not states or any(state not in STATES for state in states):
                raise ValueError(f"`hidden_loss` is {self.hidden_loss!r}; allowed: auto, none, {', '.join(STATES)}")
            self.hidden_loss = list(states)
        if self.hidden_distance not in HIDDEN_LOSSES:
            raise ValueError(f"`hidden_distance` is {self.hidden_distance!r}; allowed: {', '.join(HIDDEN_LOSSES)}")
        _check_not_negative(hidden_weight=self.hidden_weight or 0)
        self.layer_map = "auto" if self.layer_map is None else self.layer_map
        if isinstance(self.layer_map, str) and self.layer_map not in ("auto", "origins"):
            raise ValueError(f"`layer_map` is {self.layer_map!r}; allowed: auto, origins, or a mapping of blocks")

    @property
    def objective(self) -> Objective:
        """The loss minimised at each position."""
        return Objective(
            self.divergence,
            self.jsd_beta,
            self.temperature,
            self.temperature_squared,
            self.top_k,
            self.kd_weight,
            self.ce_weight,
            self.loss_type == "dft",
        )


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}; wanted: more than 0")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"`{name}` is {value}; wanted: 0 or more")
